"""Hidden files, and folders that programs make, are not read and are counted, in every source."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from gsfl_tune.data import prepare
from gsfl_tune.data.sources import create_source
from tests.data.conftest import configure, fill, save
from tests.data.sources.test_part_names import write

JUNK = (
    "__unknown__",
    ".ipynb_checkpoints",
    "@eaDir",
    "__MACOSX",
    ".thumbnails",
    "#recycle",
    "@tmp",
    "~snapshot",
)


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("where", ["", "train/", "train/a/"])
def test_folders_that_programs_make_are_no_classes(tmp_path, cache, junk, where):
    root = tmp_path / "data"
    fill(root, {"train/a": 4, "train/b": 4, "test/a": 2})
    fill(root, {f"{where}{junk}": 3, f"{where}{junk}/a": 2}, seed=9000)
    dataset = prepare(configure("auto", root), cache_dir=cache)
    assert dataset.classes == ["a", "b"]
    assert sum(dataset.summary()["counts"].values()) == 10
    assert f"left out: 5 files: in {junk}/ 5" in dataset.notices


def test_parquet_files(tmp_path, cache):
    root = tmp_path / "data"
    for number, name in enumerate(("train", "test")):
        write(root / f"{name}.parquet", number)
    for name in ("._train", "_metadata", "__unknown__/x", ".ipynb_checkpoints/train", "@eaDir/a/y"):
        write(root / f"{name}.parquet", 9)
    source = create_source(configure("parquet", root), cache)
    assert len(source.samples) == 16
    told = "not read: 5 files: hidden 2, in .ipynb_checkpoints/ 1, in @eaDir/ 1, in __unknown__/ 1"
    assert told in source.told()
    # On any other file system too.
    source = create_source(configure("parquet", f"file://{root}"), cache)
    assert len(source.samples) == 16
    assert told in source.told()


def test_tar_files(tmp_path, cache):
    root = tmp_path / "data"
    root.mkdir()
    with tarfile.open(root / "all-000.tar", "w") as shard:
        for number in range(8):
            image = save(tmp_path / f"{number}.png", number)
            shard.add(image, f"{number}.png")
            (tmp_path / "label.cls").write_text(str(number % 2))
            shard.add(tmp_path / "label.cls", f"{number}.cls")
    for name in ("._all-000.tar", "__MACOSX/all-000.tar"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / "all-000.tar", root / name)
    source = create_source(configure("webdataset", root), cache)
    assert len(source.samples) == 8
    assert "not read: 2 files: hidden 1, in __MACOSX/ 1" in source.told()


def rows(folder: Path) -> str:
    names = sorted(file.name for file in folder.iterdir() if file.suffix == ".png")
    return "".join(f"{name},{'ab'[n % 2]}\n" for n, name in enumerate(names))


def test_tables(tmp_path, cache):
    """Also files that a row could mean by its name, where they are searched for."""
    root = tmp_path / "data"
    fill(root, {"pictures/deep": 8, "pictures/@eaDir": 2, "pictures/.thumbnails": 8})
    text = "file,label\n" + rows(root / "pictures" / "deep")
    (root / "list.csv").write_text(text)
    for name in ("._list.csv", "__MACOSX/list.csv", ".ipynb_checkpoints/list.csv"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    source = create_source(configure("csv", root), cache)
    assert len(source.samples) == 8
    assert all("/deep/" in sample.path for sample in source.samples)
    told = source.told()
    assert "not read: 3 files: hidden 1, in .ipynb_checkpoints/ 1, in __MACOSX/ 1" in told
    searched = next(line for line in told if "not searched for its images" in line)
    assert "in .thumbnails/ 8" in searched
    assert "in @eaDir/ 2" in searched


def test_coco(tmp_path, cache):
    root = tmp_path / "data"
    fill(root, {"pictures/deep": 4, "pictures/@eaDir": 2})
    content = {
        "images": [{"id": n, "file_name": f"{n:03d}.png"} for n in range(4)],
        "annotations": [{"id": n, "image_id": n, "category_id": n % 2} for n in range(4)],
        "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
    }
    for name in ("labels.json", ".labels.json", "__MACOSX/labels.json"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(json.dumps(content))
    source = create_source(configure("coco", root), cache)
    assert len(source.samples) == 4
    told = source.told()
    assert "not read: 2 files: hidden 1, in __MACOSX/ 1" in told
    searched = next(line for line in told if "not searched for its images" in line)
    assert "in @eaDir/ 2" in searched
