"""The contract holds for sources that are built in, and finds what breaks it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.data.sources import Sample, Source, create_source
from gsfl_tune.experiment.config import DataConfig
from gsfl_tune.plugins import BUILT_IN
from gsfl_tune.testing import check_source
from tests.data.sources.test_coco import inaturalist as inaturalist_json
from tests.data.sources.test_cub import make_cub
from tests.data.sources.test_fiftyone import export
from tests.data.sources.test_nabirds import make_nabirds
from tests.data.sources.test_parquet import write as write_parquet
from tests.data.sources.test_public_sets import MAKERS as PUBLIC_SETS
from tests.data.sources.test_torchvision_layouts import MAKERS as TORCHVISION_LAYOUTS
from tests.data.sources.test_torchvision_sets import MAKERS as TORCHVISION_SETS


def pictures(folder):
    generator = np.random.default_rng(0)
    for name in ("jay", "wren"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            pixels = generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def listed(folder):
    """File and label of each picture."""
    files = sorted(pictures(folder).rglob("*.png"))
    return [(str(file.relative_to(folder)), file.parent.name) for file in files]


def csv(folder):
    rows = [",".join(row) for row in listed(folder)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    return folder / "labels.csv"


def jsonl(folder):
    rows = [json.dumps({"file_name": file, "label": label}) for file, label in listed(folder)]
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    return folder / "metadata.jsonl"


def arrow(folder):
    pytest.importorskip("datasets")
    from tests.data.sources.test_arrow import saved

    saved(9).save_to_disk(folder)
    return folder


def webdataset(folder):
    pytest.importorskip("webdataset")
    from tests.data.sources.test_webdataset import shard

    for number in range(2):
        shard(folder / f"train-{number:06d}.tar", 6, seed=100 * number)
    return folder


def parquet(folder):
    # Several row groups: images are read a group at a time.
    write_parquet(folder / "train.parquet", [0, 1] * 5, names=["hat", "shoe"], row_group_size=3)
    return folder


def made_in(make):
    def made(folder):
        folder.mkdir()
        make(folder)
        return folder

    return made


# A small copy of the form of each source.
MADE = {
    "auto": pictures,
    "folder": pictures,
    "csv": csv,
    "jsonl": jsonl,
    "coco": inaturalist_json,
    "parquet": parquet,
    "arrow": arrow,
    "webdataset": webdataset,
    "fiftyone": lambda folder: export(folder, 8),
    "cub": made_in(make_cub),
    "nabirds": made_in(make_nabirds),
    **{
        name: made_in(make)
        for name, make in (TORCHVISION_SETS | TORCHVISION_LAYOUTS | PUBLIC_SETS).items()
    },
    "typefaces": lambda folder: None,
}


@pytest.mark.parametrize("name", BUILT_IN["source"])
def test_sources_that_are_built_in_keep_the_contract(name, tmp_path):
    path = MADE[name](tmp_path / "images")
    content = {"source": name, "typefaces": {"train": 3, "test": 2, "size": 32}}
    if path is not None:
        content["path"] = str(path)
    config = DataConfig.model_validate(content)
    check_source(lambda: create_source(config, tmp_path / "cache"))


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
