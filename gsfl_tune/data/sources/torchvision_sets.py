"""Benchmarks in torchvision's layouts.

The lists are read here, because torchvision keeps the paths of its images private and does not say
which image is broken. torchvision does the downloads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gsfl_tune.data.image_file import Box
from gsfl_tune.data.sources._base import Part, some
from gsfl_tune.data.sources._benchmark import BenchmarkSource
from gsfl_tune.data.sources._lists import matrix, text_lines
from gsfl_tune.experiment.errors import UserError

_OLD_CARS = ("cars_annos.mat", "car_ims")


class AircraftSource(BenchmarkSource):
    """Reads FGVC Aircraft, 100 variants, with its train, val and test parts.

    The lowest 20 pixels of every photograph name the photographer and are cut. Maji et al., arXiv
    1306.5151, say to remove them, as photographers prefer certain aircraft.
    """

    folder = "fgvc-aircraft-2013b"
    torchvision_name = "FGVCAircraft"
    needed = (
        "data/variants.txt",
        "data/images",
        "data/images_variant_train.txt",
        "data/images_variant_val.txt",
        "data/images_variant_test.txt",
    )
    help = (
        "Set data.download: true, or unpack "
        "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz "
        "there."
    )

    def _list(self) -> None:
        self.cut_bottom = 20
        data = self.root / "data"
        self.classes = [line.strip() for line in text_lines(data / "variants.txt")]
        label = {name: number for number, name in enumerate(self.classes)}
        parts: tuple[tuple[str, Part], ...] = (
            ("train", "train"),
            ("val", "validation"),
            ("test", "test"),
        )
        unknown: set[str] = set()
        for name, part in parts:
            for line in text_lines(data / f"images_variant_{name}.txt"):
                number, _, variant = line.strip().partition(" ")
                if variant in label:
                    self.add(data / "images" / f"{number}.jpg", label[variant], part)
                else:
                    unknown.add(variant)
        if unknown:
            self.problems.append(
                f"{data}: variants that variants.txt does not have: {some(sorted(unknown))}"
            )


class FlowersSource(BenchmarkSource):
    """Reads Oxford 102 Flowers with its train, validation and test parts."""

    folder = "flowers-102"
    torchvision_name = "Flowers102"
    needed = ("jpg", "imagelabels.mat", "setid.mat")
    help = (
        "Set data.download: true, or put 102flowers.tgz (unpacked), imagelabels.mat and "
        "setid.mat of "
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/ there."
    )

    def _list(self) -> None:
        from torchvision.datasets import Flowers102

        self.classes = list(Flowers102.classes)
        labels = matrix(self.root / "imagelabels.mat", "labels")
        sets: tuple[tuple[str, Part], ...] = (
            ("trnid", "train"),
            ("valid", "validation"),
            ("tstid", "test"),
        )
        for key, part in sets:
            for number in matrix(self.root / "setid.mat", key):
                if 1 <= number <= len(labels):
                    file = self.root / "jpg" / f"image_{int(number):05d}.jpg"
                    self._add_labelled(file, int(labels[int(number) - 1]) - 1, part)
                else:
                    self.problems.append(
                        f"{self.root}/setid.mat: image {number} has no label in imagelabels.mat"
                    )


class PetsSource(BenchmarkSource):
    """Reads Oxford-IIIT Pet, 37 breeds, with its trainval and test parts."""

    folder = "oxford-iiit-pet"
    torchvision_name = "OxfordIIITPet"
    needed = ("images", "annotations/trainval.txt", "annotations/test.txt")
    help = (
        "Set data.download: true, or unpack images.tar.gz and annotations.tar.gz of "
        "https://www.robots.ox.ac.uk/~vgg/data/pets/ there."
    )

    def _list(self) -> None:
        names: dict[int, str] = {}
        rows: list[tuple[str, int, Part]] = []
        parts: tuple[tuple[str, Part], ...] = (("trainval", "train"), ("test", "test"))
        for name, part in parts:
            file = self.root / "annotations" / f"{name}.txt"
            for number, line in enumerate(text_lines(file), start=1):
                pieces = line.split()
                if len(pieces) < 2 or not pieces[1].isdigit():
                    raise UserError(f"{file}:{number}: {line!r}: expected an image and its class")
                rows.append((pieces[0], int(pieces[1]) - 1, part))
                if part == "train":
                    names.setdefault(int(pieces[1]) - 1, pieces[0].rsplit("_", 1)[0])
        self.classes = [
            " ".join(word.title() for word in names[label].split("_")) if label in names else "?"
            for label in range(max(names, default=-1) + 1)
        ]
        for image, label, part in rows:
            self._add_labelled(self.root / "images" / f"{image}.jpg", label, part)


class CarsSource(BenchmarkSource):
    """Reads Stanford Cars, 196 models with their boxes, from an existing folder.

    Its first form (``cars_annos.mat`` and ``car_ims/``) has the same parts.
    """

    folder = "stanford_cars"
    torchvision_name = "StanfordCars"
    needed = (
        "devkit/cars_meta.mat",
        "devkit/cars_train_annos.mat",
        "cars_test_annos_withlabels.mat",
        "cars_train",
        "cars_test",
    )
    help = (
        "The official download of Stanford Cars is gone: the folder stanford_cars/ has to come "
        "from a copy (devkit/, cars_train/, cars_test/ and cars_test_annos_withlabels.mat, or "
        "cars_annos.mat and car_ims/); "
        "`data.source: parquet` reads copies in the Hugging Face layout."
    )

    def _download(self, root: Path) -> None:
        raise UserError(f"data.download: {self.help}")

    def _needed(self, root: Path) -> tuple[str, ...]:
        return _OLD_CARS if (root / _OLD_CARS[0]).exists() else self.needed

    def _list(self) -> None:
        if self._needed(self.root) == _OLD_CARS:
            table = self.root / _OLD_CARS[0]
            self.classes = [str(name) for name in matrix(table, "class_names")]
            for row in matrix(table, "annotations"):
                file = self.root / str(row["relative_im_path"])
                part: Part = "test" if row["test"] else "train"
                self._add_labelled(file, int(row["class"]) - 1, part, _box(row))
            return
        self.classes = [
            str(name) for name in matrix(self.root / "devkit" / "cars_meta.mat", "class_names")
        ]
        lists: tuple[tuple[str, str, Part], ...] = (
            ("devkit/cars_train_annos.mat", "cars_train", "train"),
            ("cars_test_annos_withlabels.mat", "cars_test", "test"),
        )
        for name, folder, part in lists:
            for row in matrix(self.root / name, "annotations"):
                file = self.root / folder / str(row["fname"])
                self._add_labelled(file, int(row["class"]) - 1, part, _box(row))


def _box(row: Any) -> Box | None:
    """Returns the box of a car: two corners, whose pixels are counted from 1."""
    names = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    if not set(names) <= set(row.dtype.names or ()):
        return None
    x0, y0, x1, y1 = (float(row[name]) for name in names)
    return x0 - 1, y0 - 1, x1, y1
