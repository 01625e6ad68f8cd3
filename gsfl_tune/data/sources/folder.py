"""A folder with one folder of images per class, with or without split folders."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from gsfl_tune.data.sources._base import FileSource, Part, local_directory, some
from gsfl_tune.data.sources._glued import glued_parts, glued_text
from gsfl_tune.data.sources._layouts import known_layout, species_below
from gsfl_tune.data.sources._names import (
    MASKS,
    AmbiguousName,
    are_shards,
    is_structure,
    normal,
    part_of_name,
)
from gsfl_tune.data.sources._walk import Found, Listing, walk

WHAT = "a folder with one folder of images for each class"
Classes = Literal["top", "leaf", "path"]
_JUST_TRAIN = ("train", "training")
_CLUTTER = "BACKGROUND_Google"


class FolderSource(FileSource):
    """Reads ``ROOT/CLASS/**/image`` or ``ROOT/{train,val,test}/CLASS/**/image``.

    There are split folders if a folder named for training contains folders. Names follow
    `part_of_name` (``seg_train``, ``train_images``, ...). Split folders are those beside ``train``
    or, without a folder named just ``train``, all folders.

    Args:
        path: The root.
        classes: Which folder is the class: the uppermost (``top``), the one with the image
            (``leaf``), or all below the root (``path``, joined by ``/``). With the last two, the
            folder above a class is its group.
        scoring: Whether classes are those of all parts, not of the training part alone.

    Raises:
        UserError: If the root does not exist.
    """

    def __init__(
        self, path: str | list[str] | None, *, classes: Classes = "top", scoring: bool = False
    ) -> None:
        super().__init__()
        self._scoring = scoring
        root = local_directory(path, WHAT)
        self._classes = classes
        listing = walk(root)
        self.left_out = listing.left_out
        parts = self._parts(root, listing)
        self._list(root, listing, parts)
        if not self.classes and not self.problems:
            known = known_layout(root)
            hint = f"; {known.told}" if known else ""
            self.problems.append(f"{root}: no class folders; expected {WHAT}{hint}")
        if _CLUTTER in self.classes:
            self.notices.append(
                f"{_CLUTTER} is taken for a class; in Caltech-101 it holds pictures of anything: "
                "move it out of the folder if it is no class of yours"
            )

    def _parts(self, root: Path, listing: Listing) -> dict[str, Part] | None:
        """Returns the part of every split folder; None if there are none."""
        tops = [names[0] for names in listing.folders if len(names) == 1]
        divided = {names[0] for names in listing.folders if len(names) > 1}
        holding = {found.folders[0] for found in listing.images if found.folders}
        told = _told(tops)
        strangers = sorted(holding - told.keys())
        unclear = [f"{top}/" for top in sorted(holding & divided) if _unclear(top)]
        if unclear and self._classes == "top":
            self.problems.append(
                f"{root}: {some(unclear)} may be one part or another (train, validation, test): "
                "rename it; `data.classes: path` takes what is in it for classes"
            )
            return told
        glued = glued_parts(sorted(holding), _hold_alike(listing, holding))
        if glued and self._classes == "top":
            self.problems.append(
                f"{root}: {glued_text(glued)}; `data.classes: path` takes what is in such folders "
                "for classes"
            )
            return told
        if any(top.lower() in _JUST_TRAIN and top in divided for top in told):
            if strangers:
                self.problems.append(
                    f"{root}: folders beside train/ that are neither val/ nor test/: "
                    f"{some(strangers)}"
                )
            # Folders without images, of annotations for one, do no harm here.
            self._refuse_twice(root, {top: part for top, part in told.items() if top in holding})
            return told
        both = {told[top] for top in told if top in holding & divided}
        if strangers and len(both) > 1 and "train" in both and self._classes != "path":
            self.problems.append(
                f"{root}: {some([f'{top}/' for top in told if top in holding])} are parts, and "
                f"the folders beside them are not: {some([f'{top}/' for top in strangers])}: move "
                "these out of the folder; `data.classes: path` takes all of them for classes"
            )
            return told
        if strangers or not divided & told.keys():
            return None
        if "train" in told.values():
            self._refuse_twice(root, told)
            return told
        if self._scoring:
            return told
        if set(told.values()) == {"test"}:
            # A test part alone is used as all images.
            self.notices.append(
                f"{root}: only {some([f'{top}/' for top in told])}, no training folder beside it: "
                "used as images without a split"
            )
            return told
        self.problems.append(f"{root}: split folders, but no train/ with class folders in it")
        return None

    def _refuse_twice(self, root: Path, told: dict[str, Part]) -> None:
        """Refuses several folders of one part: one may hold masks, or copies of the other."""
        for part, count in Counter(told.values()).items():
            if count > 1:
                names = [f"{top}/" for top, of in told.items() if of == part]
                self.problems.append(
                    f"{root}: {some(names)} look like the {part} part each; allowed is one: move "
                    "the others out of the folder"
                )

    def _list(self, root: Path, listing: Listing, parts: dict[str, Part] | None) -> None:
        depth = 0 if parts is None else 1
        unsplit = parts is None or not ("train" in parts.values() or self._scoring)
        names: dict[Part | None, dict[str, tuple[str, ...]]] = {}
        for folders in listing.folders:
            if len(folders) == depth + 1 and (parts is None or folders[0] in parts):
                part = None if unsplit else (parts or {})[folders[0]]
                if self._classes == "top":
                    names.setdefault(part, {})[normal(folders[depth])] = folders
        images: list[tuple[Found, str, Part | None]] = []
        for found in listing.images:
            if len(found.folders) <= depth:
                listing.leave_out("beside the class folders")
                continue
            if parts is not None and found.folders[0] not in parts:
                continue
            part = None if unsplit else (parts or {})[found.folders[0]]
            name = self._class(found.folders[depth:])
            names.setdefault(part, {}).setdefault(name, found.folders[depth:])
            images.append((found, name, part))
        training = {**names.get(None, {}), **names.get("train", {})}
        if self._scoring:
            training = {name: names[part][name] for part in names for name in names[part]}
        self.classes = sorted(training)
        self._refuse_inside(root, listing, depth)
        self._refuse_structure(root, listing, depth)
        label = {name: number for number, name in enumerate(self.classes)}
        for part, found_names in names.items():
            unknown = sorted(name for name in found_names if name not in label)
            if unknown:
                where = next((top for top, of in (parts or {}).items() if of == part), "")
                self.problems.append(
                    f"{root / where}: classes that train/ does not have: {some(unknown)}"
                )
        for found, name, part in images:
            if name in label:
                self.add(found.file, label[name], part, found.stamp)
        if self._classes != "top":
            self._refuse_equal_names(root, images, depth)
            self._group(training)
        else:
            self._say_nested(root, images, depth)

    def _class(self, folders: tuple[str, ...]) -> str:
        if self._classes == "path":
            return normal("/".join(folders))
        return normal(folders[0] if self._classes == "top" else folders[-1])

    def _refuse_equal_names(
        self, root: Path, images: list[tuple[Found, str, Part | None]], depth: int
    ) -> None:
        """Refuses leaf folders with one name in two places, as they may be two classes."""
        places: dict[str, set[str]] = {}
        for found, name, part in images:
            if part in (None, "train"):
                places.setdefault(name, set()).add("/".join(found.folders[depth:]))
        twice = {name: sorted(where) for name, where in places.items() if len(where) > 1}
        if twice:
            name, where = next(iter(sorted(twice.items())))
            self.problems.append(
                f"{root}: {len(twice)} names are of several folders, such as {name} ({some(where)}"
                "); `data.classes: path` tells them apart"
            )

    def _group(self, training: dict[str, tuple[str, ...]]) -> None:
        """Makes the folder above a class its group, if there are several."""
        groups = [normal("/".join(training[name][:-1])) for name in self.classes]
        if all(groups) and len(set(groups)) > 1:
            self.known_groups = groups

    def _say_nested(
        self, root: Path, images: list[tuple[Found, str, Part | None]], depth: int
    ) -> None:
        """Notes folders inside classes that look like finer classes."""
        leaves = {found.folders[depth:] for found, _, part in images if part in (None, "train")}
        if not leaves or any(len(leaf) == 1 for leaf in leaves):
            return
        if not depth and any(_told(list(leaf[1:])) for leaf in leaves):
            return  # leaves of several parts
        inside = {normal(leaf[-1]) for leaf in leaves}
        count = len(self.classes)
        if len(leaves) > count and len(inside) > count:
            example = "/".join(sorted(leaves)[0])
            known = species_below(root)
            whose = f"{known}: " if known else ""
            self.notices.append(
                f"{whose}{count} classes, the uppermost folders, whose images all lie in "
                f"{len(leaves)} folders below ({example}): `data.classes: leaf` makes these the "
                "classes"
            )

    def _refuse_inside(self, root: Path, listing: Listing, depth: int) -> None:
        """Refuses parts and masks inside the class folders, whose images would be mixed."""
        if self.problems or self._classes != "top":
            return
        inside: dict[str, set[str]] = {}
        for found in listing.images:
            if len(found.folders) > depth:
                below = found.folders[depth + 1] if len(found.folders) > depth + 1 else ""
                inside.setdefault(found.folders[depth], set()).add(below)
        if len(inside) < 2:
            return
        # Of a few classes only, such names may be finer classes.
        enough = len(inside) / 2
        divided: Counter[str] = Counter()
        masked: Counter[str] = Counter()
        for names in inside.values():
            told = _told(sorted(names))
            if len({*told.values()}) > 1 and "train" in told.values():
                divided.update(told.keys())
            masks = [name for name in names if name.lower().replace("-", "_") in MASKS]
            if len(masks) < len(names):
                masked.update(masks)
        parts = sorted(name for name, count in divided.items() if count >= enough)
        if parts:
            self.problems.append(
                f"{root}: the class folders hold folders that are called for parts: "
                f"{some([f'{name}/' for name in parts])}: parts are expected above the classes "
                "(train/CLASS/), or in a column of a table (data.source: csv)"
            )
        kinds = sorted(name for name, count in masked.items() if count >= enough)
        if kinds:
            self.problems.append(
                f"{root}: the class folders hold {some([f'{name}/' for name in kinds])} beside "
                "their images, which look like another kind of files: move or rename them"
            )

    def _refuse_structure(self, root: Path, listing: Listing, depth: int) -> None:
        """Refuses folders that are not classes, and says which path is probably meant."""
        if self.problems or self._classes != "top" or not self.classes:
            return
        known = known_layout(root)
        if known is not None:
            self.problems.append(f"{root}: {known.told}")
            return
        inner: dict[str, set[str]] = {}
        for folders in listing.folders:
            if len(folders) == depth + 2:
                inner.setdefault(folders[depth], set()).add(folders[-1])
        shown = some([f"{name}/" for name in self.classes])
        holding = Counter(f.folders[depth] for f in listing.images if len(f.folders) > depth)
        best = max(inner, key=lambda name: (len(inner[name]), holding[name], name), default=None)
        meant = "" if best is None or depth else f"data.path: {root / best}"
        common = _common(listing)
        if meant and len(self.classes) == 1 and len(common) > 1:
            meant = f"data.path: {root.joinpath(*common)}"
        self._refuse_again(root, inner)
        structure = [name for name in self.classes if is_structure(name)]
        alike = len(structure) > 1 and _alike({name: inner.get(name, set()) for name in structure})
        if alike and len(structure) < len(self.classes):
            largest = max(structure, key=lambda name: (holding[name], name))
            self.problems.append(
                f"{root}: {some([f'{name}/' for name in structure])} hold the same folders and "
                "look like kinds of files or parts, not like classes; "
                + (f"probably meant: data.path: {root / largest}; " if not depth else "")
                + "`data.classes: path` takes all folders for classes"
            )
        elif all(is_structure(name) for name in self.classes) or are_shards(self.classes):
            self.problems.append(
                f"{root}: {shown} look like kinds of files or parts, not like classes; "
                + (f"probably meant: {meant}; " if meant else f"expected {WHAT}; ")
                + "`data.classes: path` takes them for classes all the same"
            )
        elif meant and len(self.classes) == 1 and best:
            below = len({folders[len(common)] for folders in listing.folders_below(common)})
            if below > 1 and not self._scoring:
                self.problems.append(
                    f"{root}: its only folder of images, {'/'.join(common)}/, holds {below} "
                    f"folders: probably meant: {meant}"
                )
        elif meant and len(inner) == len(self.classes) > 1 and _alike(inner):
            count = len(set.union(*inner.values()))
            self.notices.append(
                f"{shown} are the classes, and hold the same {count} folders: if those are the "
                f"classes, one of them is meant, such as {meant}"
            )

    def _refuse_again(self, root: Path, inner: dict[str, set[str]]) -> None:
        """Refuses a folder that holds the class folders beside it once more."""
        for name, inside in inner.items():
            again = sorted(inside & set(self.classes) - {name})
            if len(again) > 1 and len(again) >= len(self.classes) / 2:
                self.problems.append(
                    f"{root}: {name}/ holds folders of the same names as the class folders beside "
                    f"it, maybe the same images: {some([f'{each}/' for each in again])}: move it "
                    "out of the folder"
                )


def _common(listing: Listing) -> tuple[str, ...]:
    """Returns the names of the folders that hold all images."""
    levels = zip(*[found.folders for found in listing.images], strict=False)
    same = itertools.takewhile(lambda names: len(set(names)) == 1, levels)
    return tuple(names[0] for names in same)


def _told(tops: list[str]) -> dict[str, Part]:
    """Returns the part of every folder whose name has one."""
    told: dict[str, Part] = {}
    for top in tops:
        try:
            part = part_of_name(top)
        except AmbiguousName:
            continue
        if part is not None:
            told[top] = part
    return told


def _hold_alike(listing: Listing, holding: set[str]) -> Callable[[str, str], bool]:
    """Returns a function that says whether two folders hold folders of one name.

    Or whether they are the only ones and hold none, and one is called a part.
    """
    inside: dict[str, set[str]] = {}
    for found in listing.images:
        inside.setdefault(found.folders[0] if found.folders else "", set()).update(
            found.folders[1:2]
        )

    def alike(one: str, other: str) -> bool:
        if inside[one] or inside[other]:
            return bool(inside[one] & inside[other])
        return {one, other} == holding and (is_structure(one) or is_structure(other))

    return alike


def _unclear(name: str) -> bool:
    """Returns whether a name holds words for parts but tells none."""
    try:
        part_of_name(name)
    except AmbiguousName:
        return True
    return False


def _alike(inner: dict[str, set[str]]) -> bool:
    """Returns whether two or more folders contain folders of the same names."""
    common, everything = set.intersection(*inner.values()), set.union(*inner.values())
    return len(common) >= 2 and len(common) >= 0.8 * len(everything)
