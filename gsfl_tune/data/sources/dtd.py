"""Describable Textures in torchvision's layout."""

from __future__ import annotations

from gsfl_tune.data.sources._base import Part
from gsfl_tune.data.sources._benchmark import BenchmarkSource
from gsfl_tune.data.sources._lists import text_lines
from gsfl_tune.experiment.errors import UserError

_LISTS: tuple[tuple[str, Part], ...] = (
    ("labels/train1.txt", "train"),
    ("labels/val1.txt", "validation"),
    ("labels/test1.txt", "test"),
)


class DTDSource(BenchmarkSource):
    """Reads 47 textures, with the first of their ten official divisions, torchvision's default."""

    folder = "dtd/dtd"
    torchvision_name = "DTD"
    needed = ("images", *(name for name, _ in _LISTS))
    help = (
        "Set data.download: true (600 MB), or unpack "
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz there."
    )

    def _list(self) -> None:
        rows: list[tuple[str, str, Part]] = []
        for name, part in _LISTS:
            file = self.root / name
            for number, line in enumerate(text_lines(file), start=1):
                texture, slash, image = line.strip().partition("/")
                if not slash or not image:
                    raise UserError(f"{file}:{number}: {line!r}: expected CLASS/IMAGE")
                rows.append((texture, image, part))
        self.classes = sorted({texture for texture, _, _ in rows})
        label = {texture: number for number, texture in enumerate(self.classes)}
        for texture, image, part in rows:
            self.add(self.root / "images" / texture / image, label[texture], part)
