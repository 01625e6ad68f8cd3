"""Files that FiftyOne, Label Studio and supervision wrote themselves (`foreign/make.py`)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gsfl_tune.data import prepare
from gsfl_tune.data.sources import create_source, detect_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, save

FOREIGN = Path(__file__).parent / "foreign"
NAMES = ["hat", "shoe"]


def copy(tool: str, name: str, target: Path) -> Path:
    """An export with its images, which all differ."""
    root = target / name
    if (FOREIGN / tool / name).exists():
        shutil.copytree(FOREIGN / tool / name, root)
    listed = (FOREIGN / tool / "files.txt").read_text().splitlines()
    for number, file in enumerate(file for file in listed if file.startswith(f"{name}/")):
        save(target / file, number)
    return root


def labels_of(source) -> dict[str, str]:
    """The class of every image by its name, which says what it is."""
    return {Path(each.path).name: source.classes[each.label] for each in source.samples}


def expected(count: int = 12, first: int = 0) -> dict[str, str]:
    return {f"{NAMES[n % 2]} {n:02d}.jpg": NAMES[n % 2] for n in range(first, count)}


@pytest.mark.parametrize(
    ("name", "source", "first"),
    [
        ("names", "fiftyone", 0),
        ("numbers", "fiftyone", 0),
        ("attributes", "fiftyone", 0),
        ("lists", "fiftyone", 0),
        ("some", "fiftyone", 2),
        ("folders", "folder", 0),
        ("coco", "coco", 0),
        ("csv", "csv", 0),
    ],
)
def test_exports_of_fiftyone(tmp_path, cache, name, source, first):
    root = copy("fiftyone", name, tmp_path)
    assert detect_source(str(root)) == source
    read = create_source(configure("auto", root), cache)
    assert not read.problems
    assert labels_of(read) == expected(first=first)
    assert all(sample.stamp for sample in read.samples)
    assert sum(read.left_out.values()) == first


def test_parts_of_fiftyone(tmp_path, cache):
    root = copy("fiftyone", "parts", tmp_path)
    dataset = prepare(configure("auto", root), cache_dir=cache)
    assert dataset.classes == NAMES
    assert dataset.summary()["counts"] == {"train": 6, "validation": 2, "test": 4}
    # Its tags are a column of the table, of which a user says what it is.
    table = copy("fiftyone", "csv", tmp_path)
    dataset = prepare(configure("csv", table, split_column="tags"), cache_dir=cache)
    assert dataset.summary()["counts"] == {"train": 6, "validation": 2, "test": 4}


def test_folders_of_supervision(tmp_path, cache):
    root = copy("supervision", "folders", tmp_path)
    dataset = prepare(configure("auto", root), cache_dir=cache)
    assert dataset.classes == NAMES
    counts = dataset.summary()["counts"]
    assert (counts["train"] + counts["validation"], counts["test"]) == (9, 3)
    assert labels_of(create_source(configure("auto", root), cache)) == expected()


def read_by_pycocotools(tool: str) -> dict[str, tuple]:
    rows = json.loads((FOREIGN / "pycocotools" / f"{tool}.json").read_text())
    found = {}
    for row in rows:
        x, y, width, height = row["box"]
        corners = (x, y, x + width, y + height)
        found[Path(row["file"]).name] = (row["class"], pytest.approx(corners))
    return found


@pytest.mark.parametrize("tool", ["fiftyone", "supervision"])
def test_boxes_are_those_that_pycocotools_reads(tmp_path, cache, tool):
    root = copy(tool, "coco", tmp_path)
    assert detect_source(str(root)) == "coco"
    source = create_source(configure("auto", root, crop="box"), cache)
    assert not source.problems
    assert all(sample.stamp for sample in source.samples)
    ours = {
        Path(each.path.rpartition("#")[0]).name: (source.classes[each.label], each.box)
        for each in source.samples
    }
    assert ours == read_by_pycocotools(tool)


def uploads(root: Path) -> None:
    """The files of Label Studio's server: uploads, and a folder that it serves."""
    for task in json.loads((FOREIGN / "label_studio" / "tasks.json").read_text()):
        image = task["data"]["image"]
        number = task["id"] - 100
        if "?d=" in image:
            save(root / image.partition("?d=")[2].replace("%20", " "), number)
        else:
            save(root / image.removeprefix("/data/"), number)


@pytest.mark.parametrize(
    ("name", "source"), [("csv", "csv"), ("json_min", "jsonl"), ("coco", "coco")]
)
def test_a_folder_of_label_studio_is_not_taken_for_classes(tmp_path, cache, name, source):
    """Uploads alone are none; folders that it serves may be, so both ways are named."""
    root = tmp_path / "export"
    shutil.copytree(FOREIGN / "label_studio" / name, root)
    uploads(root)
    with pytest.raises(UserError, match=rf"{source} \(result\.\w+\), folder \(folders such as"):
        detect_source(str(root))
    shutil.rmtree(root / "things")
    assert detect_source(str(root)) == source


@pytest.mark.parametrize(("name", "file"), [("csv", "result.csv"), ("json_min", "result.json")])
def test_choices_of_label_studio(tmp_path, cache, name, file):
    shutil.copytree(FOREIGN / "label_studio" / name, tmp_path / "export")
    uploads(tmp_path / "export")
    read = create_source(configure("auto", tmp_path / "export" / file), cache)
    assert not read.problems
    assert read.left_out == {"without a label": 1, "with several labels": 1}
    assert len(read.samples) == 10
    assert all(sample.stamp for sample in read.samples)
    assert all(label in path for path, label in labels_of(read).items())


def test_boxes_of_label_studio(tmp_path, cache):
    shutil.copytree(FOREIGN / "label_studio" / "coco", tmp_path / "export")
    uploads(tmp_path / "export")
    file = tmp_path / "export" / "result.json"
    source = create_source(configure("auto", file, crop="box"), cache)
    assert not source.problems
    assert all(sample.stamp for sample in source.samples)
    ours = {
        Path(each.path.rpartition("#")[0]).name: (source.classes[each.label], each.box)
        for each in source.samples
    }
    theirs = {
        name.replace("%20", " ").removeprefix("?d="): row
        for name, row in read_by_pycocotools("label_studio").items()
    }
    assert ours == theirs


def test_the_tools_are_named():
    versions = json.loads((FOREIGN / "versions.json").read_text())
    assert set(versions) == {"fiftyone", "label-studio-sdk", "supervision", "pycocotools"}
