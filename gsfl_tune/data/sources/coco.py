"""COCO, iNaturalist, and competitions with annotations in the same layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gsfl_tune.data.annotations import Annotations
from gsfl_tune.data.sources._base import FileSource, Part, expand, some, without_label
from gsfl_tune.data.sources._coco import Annotation, CocoFile, Key, read_coco
from gsfl_tune.data.sources._described import (
    Description,
    find_descriptions,
    is_coco,
    unsplit_beside_split,
    use_alone,
)
from gsfl_tune.data.sources._labels import degenerate
from gsfl_tune.data.sources._locate import Locator, NotFound
from gsfl_tune.data.sources._row_parts import counts_of, parts_of_folders
from gsfl_tune.experiment.errors import UserError

WHAT = "JSON files in the layout of COCO (images, annotations, categories)"


class CocoSource(FileSource):
    """Reads JSON files with lists of images, annotations and categories.

    Names of files give the parts (``train2021.json``, ``valid/_annotations.coco.json``).
    Supercategories are groups of classes if there are several.

    Args:
        path: A file, a folder with such files, or a list of these.
        root: Folder that image paths start from; default: found beside each file.
        crop: Whether each box is a sample; else each image is one, which needs one category.
        scoring: Whether a test part without other parts stays a test part.

    Raises:
        UserError: If there is no such file, or several of the same part.
    """

    def __init__(
        self,
        path: str | list[str] | None,
        *,
        root: str | None = None,
        crop: bool = False,
        scoring: bool = False,
    ) -> None:
        super().__init__()
        self._root = None if root is None else Path(expand(root))
        if self._root is not None and not self._root.is_dir():
            raise UserError(f"data.root: {root} is not a folder")
        unread = Counter[str]()
        files = find_descriptions(path, is_coco, WHAT, unread)
        self.note_unread(unread)
        _refuse_two_of_a_part(files)
        files = use_alone(files, self.notices, scoring=scoring)
        problem = unsplit_beside_split(files)
        if problem is not None:
            self.problems.append(problem)
        contents = [read_coco(file.file) for file in files]
        boxed = crop and any(a.box for content in contents for a in content.annotations)
        self.kind = "annotation" if boxed else "image"
        names = self._categories(files, contents)
        self._parts = list(dict.fromkeys(n for c in contents for p in c.parts.values() for n in p))
        self._points: list[Mapping[str, tuple[float, float]]] = []
        index = {number: label for label, number in enumerate(names)}
        self._used: set[str] = set()
        for file, content in zip(files, contents, strict=True):
            self.problems += content.problems
            chosen = self._boxes(content) if boxed else self._one_an_image(file, content)
            self._list(file, content, chosen, index, boxed)
        self.drop_empty_classes()
        if self.known_groups is not None and len(set(self.known_groups)) < 2:
            self.known_groups = None

    def annotations(self) -> Annotations:
        """Returns boxes, and keypoints as points of parts."""
        points = np.full((len(self.samples), len(self._parts), 2), np.nan, dtype=np.float32)
        column = {name: place for place, name in enumerate(self._parts)}
        for row, found in enumerate(self._points):
            for name, point in found.items():
                points[row, column[name]] = point
        return Annotations.of(
            [sample.box for sample in self.samples], points=points, part_names=self._parts
        )

    def _categories(
        self, files: Sequence[Description], contents: Sequence[CocoFile]
    ) -> dict[Key, str]:
        """Returns the names of all classes by id; sets `classes` and `known_groups`."""
        names: dict[Key, str] = {}
        groups: dict[Key, str] = {}
        for file, content in zip(files, contents, strict=True):
            odd = [
                f"{number} ({names[number]}, {name})"
                for number, name in content.categories.items()
                if names.setdefault(number, name) != name
            ]
            if odd:
                self.problems.append(
                    f"{file.file}: categories of other names than in {files[0].file}: {some(odd)}"
                )
            groups.update(content.groups)
        twice = {name for name, count in Counter(names.values()).items() if count > 1}
        if twice:
            self.notices.append(
                f"categories of one name are told apart by their ids: {some(sorted(twice), 3)}"
            )
        self.classes = [f"{n} ({number})" if n in twice else n for number, n in names.items()]
        if all(number in groups for number in names):
            self.known_groups = [groups[number] for number in names]
        return names

    def _one_an_image(self, file: Description, content: CocoFile) -> list[Annotation]:
        """Returns the annotation of each image that has one category."""
        of_image: dict[Key, list[Annotation]] = {}
        for annotation in content.annotations:
            of_image.setdefault(annotation.image, []).append(annotation)
        chosen = []
        for image in content.images:
            found = of_image.get(image, [])
            if len({annotation.category for annotation in found}) > 1:
                self.left_out["of several categories"] += 1
            elif found:
                chosen.append(found[0])
            else:
                self.left_out[without_label(file.part)] += 1
        if not content.annotations and file.part is not None:
            self.notices.append(
                f"{file.file} has no annotations: there is no {file.part} part, and one is taken "
                "from the rest where it is needed"
            )
        return chosen

    def _boxes(self, content: CocoFile) -> list[Annotation]:
        """Returns the annotations that are samples, image by image, so that a file is read once."""
        order = {image: place for place, image in enumerate(content.images)}
        chosen = []
        for annotation in content.annotations:
            if annotation.crowd:
                self.left_out["of a crowd"] += 1
            elif annotation.box is None:
                self.left_out["without a box"] += 1
            elif degenerate(annotation.box):
                self.left_out["with a box of less than a pixel"] += 1
            else:
                chosen.append(annotation)
        bare = len(content.images) - len({annotation.image for annotation in content.annotations})
        if bare:
            self.notices.append(f"{bare:,} images have no annotation and are not used")
        return sorted(chosen, key=lambda annotation: order[annotation.image])

    def _list(
        self,
        file: Description,
        content: CocoFile,
        chosen: Sequence[Annotation],
        index: dict[Key, int],
        boxed: bool,
    ) -> None:
        folder = file.file.parent
        names = (content.images[annotation.image] for annotation in chosen)
        locator = Locator(folder, self._root, file.part, names)
        single = Counter(annotation.image for annotation in content.annotations)
        odd: list[str] = []
        parts: dict[Key, Part | None] = dict.fromkeys(content.images, file.part)
        told = parts_of_folders(list(content.images.values())) if file.part is None else None
        if told is not None:
            parts = dict(zip(content.images, told, strict=True))
            self.notices.append(
                f"{file.file}: the folders of its paths tell the parts: {counts_of(told)}"
            )
        for each in chosen:
            try:
                found, stamp = locator.find(content.images[each.image], parts[each.image])
            except NotFound as error:
                odd.append(f"id {each.image}: {error}")
                continue
            name = str(found)
            name = f"{name}#{each.number}" if boxed or name in self._used else name
            self._used.add(name)
            alone = boxed or single[each.image] == 1
            box = each.box if alone else None
            self._points.append(each.points if alone else {})
            self.add(found, index[each.category], parts[each.image], stamp, box=box, name=name)
        self.notices += locator.told(str(file.file))
        if odd:
            self.problems.append(f"{file.file}: images whose files are not clear: {some(odd, 5)}")


def _refuse_two_of_a_part(files: Sequence[Description]) -> None:
    """Refuses files of a folder that may contain the same images."""
    for part in dict.fromkeys(file.part for file in files):
        of_part = [file.file for file in files if file.part == part and not file.named]
        if len({file.parent for file in of_part}) < len(of_part):
            raise UserError(
                f"data.path: several JSON files for {f'the {part} part' if part else 'no part'}, "
                f"which may hold the same images: {some([str(file) for file in of_part])}; name "
                "those that are meant"
            )
