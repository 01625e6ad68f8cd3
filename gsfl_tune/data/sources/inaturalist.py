"""iNaturalist 2021 in its official layout and in torchvision's."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from gsfl_tune.data.sources._base import FileSource, Part, local_directory, some
from gsfl_tune.data.sources._walk import Found, walk
from gsfl_tune.experiment.errors import UserError

# Names in torchvision and in the archives.
TRAIN = ("2021_train", "train")
MINI = ("2021_train_mini", "train_mini")
VALIDATION = ("2021_valid", "val")
# Number, kingdom, phylum, class, order, family, genus and specific epithet.
SPECIES = "[0-9][0-9][0-9][0-9][0-9]_*_*_*_*_*_*_*"
_SPECIES = re.compile(r"(\d{5})_[^_]+_[^_]+_[^_]+_[^_]+_([^_]+)_([^_]+)_([^_]+)")
WHAT = (
    f"the folder that holds {TRAIN[0]}/ (or {MINI[0]}/) and {VALIDATION[0]}/, or one of these "
    "with a folder for each species (00000_Animalia_..._Genus_species)"
)


class INaturalistSource(FileSource):
    """Reads the species of 2021, with train and validation parts; families are known groups.

    ``2021_train_mini`` is a part of ``2021_train`` and is used if that is missing. The official
    test images have no labels.

    Args:
        path: The folder around those of the parts, or one of these.
        scoring: Whether classes are those of all parts, not of the training part alone.

    Raises:
        UserError: If there are no species.
    """

    def __init__(self, path: str | list[str] | None, *, scoring: bool = False) -> None:
        super().__init__()
        root = local_directory(path, WHAT)
        parts = self._parts(root)
        found: list[tuple[Found, str, Part | None]] = []
        folders: dict[Part | None, set[str]] = {}
        for folder, part in parts:
            listing = walk(folder)
            self.left_out.update(listing.left_out)
            tops = [names[0] for names in listing.folders if len(names) == 1]
            odd = [name for name in tops if not _SPECIES.fullmatch(name)]
            if odd:
                self.problems.append(
                    f"{folder}: folders that are not species (00000_Animalia_..._Genus_species): "
                    f"{some(odd, 3)}"
                )
            folders[part] = {name for name in tops if _SPECIES.fullmatch(name)}
            for image in listing.images:
                if not image.folders:
                    self.left_out["beside the class folders"] += 1
                elif image.folders[0] in folders[part]:
                    found.append((image, image.folders[0], part))
        known = set.union(*folders.values())
        if not scoring and "train" in folders:
            known = folders["train"]
            unknown = sorted(set.union(*folders.values()) - known)
            if unknown:
                self.problems.append(f"{root}: species without training images: {some(unknown, 3)}")
        names = sorted(known)
        label = {name: number for number, name in enumerate(names)}
        self.classes, self.known_groups = _named(names)
        for image, name, part in found:
            if name in label:
                self.add(image.file, label[name], part, image.stamp)
        self.drop_empty_classes()

    def _parts(self, root: Path) -> list[tuple[Path, Part | None]]:
        """Returns the folders of the parts."""
        whole, mini, validation = (
            next((root / name for name in names if any((root / name).glob(SPECIES))), None)
            for names in (TRAIN, MINI, VALIDATION)
        )
        if whole is not None and mini is not None:
            self.notices.append(f"{mini}: left out, a part of {whole.name}/")
        found: list[tuple[Path, Part | None]] = []
        others = [
            folder.name
            for folder in sorted(root.iterdir())
            if folder.is_dir() and folder not in (whole, mini, validation)
        ]
        if others and (whole or mini or validation):
            self.notices.append(f"{root}: folders of no part that has labels: {some(others)}")
        training = whole or mini
        if training is not None:
            found.append((training, "train"))
        if validation is not None:
            found.append((validation, "validation" if training is not None else None))
        if not found and any(root.glob(SPECIES)):
            found.append((root, None))
        if not found:
            raise UserError(f"data.path: {root} has no species; it must name {WHAT}")
        return found


def inaturalist_classes(path: str | list[str] | None) -> int | None:
    """Returns the number of species in a folder, without looking for images.

    Raises:
        UserError: As for `INaturalistSource`.
    """
    root = local_directory(path, WHAT)
    for name in (*TRAIN, *MINI, *VALIDATION, "."):
        count = sum(1 for _ in (root / name).glob(SPECIES))
        if count:
            return count
    return None


def _named(folders: list[str]) -> tuple[list[str], list[str]]:
    """Returns name and family of species; equal names get their family appended."""
    rows = []
    for folder in folders:
        match = _SPECIES.fullmatch(folder)
        assert match is not None, "other folders have been left out"
        rows.append((f"{match[3]} {match[4]}", match[2], match[1]))
    counts = Counter(name for name, _, _ in rows)
    pairs = Counter((name, family) for name, family, _ in rows)
    names = []
    for name, family, number in rows:
        if counts[name] == 1:
            names.append(name)
        elif pairs[name, family] == 1:
            names.append(f"{name} ({family})")
        else:
            names.append(f"{name} [{number}]")
    return names, [family for _, family, _ in rows]
