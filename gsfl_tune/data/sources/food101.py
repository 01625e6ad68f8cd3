"""Food-101 in torchvision's layout."""

from __future__ import annotations

from gsfl_tune.data.sources._base import Part, some
from gsfl_tune.data.sources._benchmark import BenchmarkSource
from gsfl_tune.data.sources._lists import text_lines
from gsfl_tune.experiment.errors import UserError


class Food101Source(BenchmarkSource):
    """Reads 101 dishes, with the official train and test parts.

    Class names lose their underscores (``apple_pie``).
    """

    folder = "food-101"
    torchvision_name = "Food101"
    needed = ("images", "meta/classes.txt", "meta/train.txt", "meta/test.txt")
    help = (
        "Set data.download: true (5 GB), or unpack "
        "https://data.vision.ee.ethz.ch/cvl/food-101.tar.gz there."
    )

    def _list(self) -> None:
        names = [line.strip() for line in text_lines(self.root / "meta" / "classes.txt")]
        label = {name: number for number, name in enumerate(names)}
        self.classes = [name.replace("_", " ") for name in names]
        parts: tuple[Part, Part] = ("train", "test")
        for part in parts:
            file = self.root / "meta" / f"{part}.txt"
            unknown: set[str] = set()
            for number, line in enumerate(text_lines(file), start=1):
                name, slash, image = line.strip().partition("/")
                if not slash or not image:
                    raise UserError(f"{file}:{number}: {line!r}: expected CLASS/IMAGE")
                if name in label:
                    self.add(self.root / "images" / name / f"{image}.jpg", label[name], part)
                else:
                    unknown.add(name)
            if unknown:
                self.problems.append(
                    f"{file}: classes that classes.txt does not have: {some(sorted(unknown))}"
                )
        self.drop_empty_classes()
