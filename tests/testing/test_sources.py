"""The contract holds for sources that are built in, and finds what breaks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.data.sources import Sample, Source, create_source
from gsfl_tune.experiment.config import DataConfig
from gsfl_tune.testing import check_source


def pictures(folder):
    generator = np.random.default_rng(0)
    for name in ("jay", "wren"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            pixels = generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_sources_that_are_built_in_keep_the_contract(tmp_path):
    folder = pictures(tmp_path / "birds")
    rows = [f"{file.relative_to(folder)},{file.parent.name}" for file in folder.rglob("*.png")]
    (folder / "labels.csv").write_text("\n".join(["file,label", *sorted(rows)]) + "\n")
    settings = [
        {"source": "folder", "path": str(folder)},
        {"source": "csv", "path": str(folder / "labels.csv")},
        {"source": "typefaces", "typefaces": {"train": 3, "test": 2, "size": 32}},
    ]
    for each in settings:
        config = DataConfig.model_validate(each)
        check_source(lambda config=config: create_source(config, tmp_path / "cache"))


class Squares(Source):
    """A sound source to break."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = ["dark", "light"]
        self.samples = [Sample(n % 2, None, f"#{n}", None) for n in range(6)]

    def readers(self, positions: Sequence[int]) -> Iterator[tuple[int, object]]:
        for position in positions:
            yield position, lambda position=position: self.square(position)

    def square(self, position: int) -> object:
        return Image.new("RGB", (4, 4), (40 * position, 0, 0))


def test_a_sound_source_passes():
    check_source(Squares)


class Outside(Squares):
    def __init__(self):
        super().__init__()
        self.classes = ["dark"]


class Shuffled(Squares):
    made = 0

    def __init__(self):
        super().__init__()
        Shuffled.made += 1
        if Shuffled.made % 2:
            self.samples.reverse()


class Everything(Squares):
    def readers(self, positions):
        yield from super().readers(range(len(self.samples)))


class Late(Squares):
    """Its readers see the last position of the loop."""

    def readers(self, positions):
        for self.position in positions:
            yield self.position, lambda: self.square(self.position)


class Arrays(Squares):
    def square(self, position):
        return np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (Outside, "labels outside the 1 classes"),
        (Shuffled, "lists other images when it is made again, or in another order"),
        (Everything, r"reads the positions \[0, 1, 2, 3, 4, 5\], asked for \[1, 3, 5\]"),
        (Late, "reads another image at #1 when asked for fewer|reads another image"),
        (Arrays, "gives ndarray for #5, allowed are bytes or an image"),
    ],
)
def test_what_breaks_it_is_found(source, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_source(source)
