"""What can be adapted to: folders at any depth, lists, Parquet, tables; without their labels."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gsfl_tune.adaptation.images import open_images
from gsfl_tune.adaptation.judge import open_judge
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import load_bundle


@pytest.fixture(scope="module")
def bundle(stripes_home):
    return load_bundle(stripes_home / "bundle", "cpu")


@pytest.fixture
def folder(stripes_home, tmp_path):
    """Six images, at several depths, of which one has the same bytes as another."""
    files = sorted((stripes_home / "target").rglob("*.png"))
    for number, file in enumerate([*files[::17][:5], files[0]]):
        target = tmp_path / "photos" / ("deep/er" if number % 2 else "") / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return tmp_path / "photos"


def test_a_folder_gives_all_images_below_it_and_their_digest(bundle, folder, tmp_path):
    (folder / "notes.txt").write_text("no image")
    (folder / "deep" / "broken.png").write_bytes(b"nothing")
    found = open_images(bundle, [str(folder)], tmp_path / "cache")
    assert len(found.images) == 6
    assert found.images.side == bundle.preprocessing.side
    assert [each.path for each in found.broken] == [str(folder / "deep" / "broken.png")]
    assert any("notes" in line or "left out" in line for line in found.notices)
    # The digest is that of the images, whatever their names and order.
    moved = tmp_path / "moved"
    for number, file in enumerate(sorted(folder.rglob("[0-9]*.png"), reverse=True)):
        moved.mkdir(exist_ok=True)
        shutil.copy(file, moved / f"x{number}.png")
    again = open_images(bundle, [str(moved)], tmp_path / "cache")
    assert again.digest == found.digest
    next(moved.iterdir()).unlink()
    assert open_images(bundle, [str(moved)], tmp_path / "cache").digest != found.digest


def test_files_patterns_and_parquet_give_the_same_images(bundle, folder, tmp_path):
    cache = tmp_path / "cache"
    files = sorted(folder.rglob("*.png"))
    whole = open_images(bundle, [str(folder)], cache)
    for names in ([str(file) for file in files], [f"{folder}/**/*.png"]):
        assert open_images(bundle, names, cache).digest == whole.digest
    rows = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    # Without a column of labels, and with one that is not read.
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": rows, "label": ["?"] * 6}), tmp_path / "b.parquet")
    for name in ("a.parquet", "b.parquet"):
        found = open_images(bundle, [str(tmp_path / name)], cache)
        assert found.digest == whole.digest
        assert (found.images.gather(np.arange(6)).shape) == (6, 40, 40, 3)


def test_a_table_is_a_data_set_whose_labels_do_not_matter(bundle, folder, tmp_path):
    lines = [f"{file},nobody" for file in sorted(folder.rglob("*.png"))]
    (tmp_path / "t.csv").write_text("\n".join(["image,label", *lines]))
    found = open_images(bundle, [str(tmp_path / "t.csv")], tmp_path / "cache")
    assert len(found.images) == 6
    with pytest.raises(UserError, match="several kinds"):
        open_images(bundle, [str(tmp_path / "t.csv"), str(folder)], tmp_path / "cache")


def test_rows_that_are_not_used_are_named(bundle, folder, tmp_path):
    for at, name in (("adapt", "deep/er/1.png"), ("judge", "0.png")):
        rows = [f"{folder / name},flat", f"{folder / '2.png'},rising,truly", "https://host/x,flat"]
        (tmp_path / f"{at}.csv").write_text("\n".join(["image,label", *rows]))
    found = open_images(bundle, [str(tmp_path / "adapt.csv")], tmp_path / "cache")
    judge = open_judge(bundle, str(tmp_path / "judge.csv"), found, tmp_path / "cache")
    assert (len(found.images), len(judge.images)) == (1, 1)
    for notices in (found.notices, judge.notices):
        assert any("number of fields" in line for line in notices)
        assert any("found the address https://host/x" in line for line in notices)


def test_images_of_a_folder_without_a_label_in_its_table_are_used(bundle, folder, tmp_path):
    row = {"file_name": "0.png", "label": "flat"}
    (folder / "metadata.jsonl").write_text(json.dumps(row))
    found = open_images(bundle, [str(folder)], tmp_path / "cache")
    assert len(found.images) == 6


def test_small_images_are_told(bundle, tmp_path):
    for number in range(3):
        size = 10 if number < 2 else 50
        pixels = np.full((size, size, 3), number, np.uint8)
        (tmp_path / "small").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "small" / f"{number}.png")
    found = open_images(bundle, [str(tmp_path / "small")], tmp_path / "cache")
    assert any("2 of 3 images are smaller than the 32 px" in line for line in found.notices)


def test_what_gives_no_image_is_refused(bundle, tmp_path):
    cache = tmp_path / "cache"
    for names, said in (
        ([], "no image is named"),
        ([str(tmp_path / "no")], "no such file"),
        ([str(tmp_path / "no*.png")], "no image matches"),
        ([str(tmp_path / "x.yaml")], "an experiment file"),
    ):
        with pytest.raises(UserError, match=said):
            open_images(bundle, names, cache)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"a\.png: .*\nnone of 1 images can be read"):
        open_images(bundle, [str(tmp_path / "bad")], cache)
