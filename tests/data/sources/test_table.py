"""Tables of images as people get them: from Kaggle, the hub, Label Studio, Roboflow."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from gsfl_tune.data import prepare
from gsfl_tune.data.sources import count_classes, create_source, detect_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, save

LABEL_STUDIO = Path(__file__).parent / "label_studio"


def listed(source):
    """(file name, class, part) of every sample."""
    return [
        (Path(each.path).name, source.classes[each.label], each.part) for each in source.samples
    ]


def table(folder: Path, text: str, name: str = "t.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


# Kaggle


@pytest.mark.parametrize("suffix", ["", ".jpg"])
@pytest.mark.parametrize("folder", ["images", "train", "train_images", "."])
def test_kaggle(tmp_path, cache, suffix, folder):
    """A table of ids; a test table without labels and a sample of what to hand in beside it."""
    root = tmp_path / "competition"
    ids = [f"{number:04x}" for number in range(12)]
    for number, name in enumerate(ids):
        save(root / folder / f"{name}.jpg", number)
    frame = pd.DataFrame({"id": [f"{i}{suffix}" for i in ids], "breed": ["boxer", "pug"] * 6})
    frame.to_csv(root / "labels.csv" if folder == "." else root / "train.csv", index=False)
    if folder != ".":
        save(root / "test" / "ffff.jpg", 99)
        pd.DataFrame({"id": ["ffff"]}).to_csv(root / "test.csv", index=False)
    sample = pd.DataFrame({"id": ["ffff"], "boxer": [0.5], "pug": [0.5]})
    sample.to_csv(root / "sample_submission.csv", index=False)
    assert detect_source(str(root)) == "csv"
    dataset = prepare(configure("auto", root), cache_dir=cache)
    assert dataset.classes == ["boxer", "pug"]
    assert dataset.summary()["counts"] == {"train": 8, "validation": 2, "test": 2}
    for path, label in zip(dataset.pool.paths, dataset.pool.labels, strict=True):
        assert int(Path(path).stem, 16) % 2 == label
    assert ("left out: 1 row: without a label (test part) 1" in dataset.notices) == (folder != ".")
    assert any("there is no test part" in line for line in dataset.notices) == (folder != ".")


def test_ids_are_found_in_folders_below(tmp_path, cache):
    """As the images of HAM10000 lie in two folders, and equal names in two parts."""
    root = tmp_path / "d"
    for number in range(4):
        save(root / f"images_part_{number % 2}" / f"ISIC_{number}.jpg", number)
    text = "lesion_id,image_id,dx\n" + "".join(f"L,ISIC_{n},{'ab'[n % 2]}\n" for n in range(4))
    source = create_source(configure("csv", table(root, text, "HAM_metadata.csv")), cache)
    assert [row[:2] for row in listed(source)] == [(f"ISIC_{n}.jpg", "ab"[n % 2]) for n in range(4)]
    assert all(Path(each.path).is_file() for each in source.samples)
    for part in ("train", "test"):
        save(root / "deep" / part / "x.png", 9)
        table(root, "id,label\nISIC_1,a\nx,b\n", f"{part}.csv")
    (root / "HAM_metadata.csv").unlink()
    source = create_source(configure("csv", root, label_column="label"), cache)
    found = [(Path(each.path).parent.name, each.part) for each in source.samples]
    assert sorted(found) == [
        ("images_part_1", "test"),
        ("images_part_1", "train"),
        ("test", "test"),
        ("train", "train"),
    ]


@pytest.mark.parametrize("name", ["train.csv", "labels.csv"])
def test_no_training_image_is_taken_from_the_test_images(tmp_path, cache, name):
    """Both folders count from 0, and one of the training images is missing."""
    root = tmp_path / "d"
    for number in range(6):
        save(root / "test" / f"{number}.jpg", number)
        if number != 3:
            save(root / "train" / f"{number}.jpg", 10 + number)
    text = "id,label\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in range(6))
    source = create_source(configure("csv", table(root, text, name)), cache)
    assert [Path(each.path).parent.name for each in source.samples] == ["train"] * 6
    assert [each.stamp is None for each in source.samples] == [n == 3 for n in range(6)]


def test_rows_of_a_part_read_the_files_of_its_folder(tmp_path, cache):
    """Both folders count from 0, and one table names the part of each row."""
    root = tmp_path / "d"
    for number in range(6):
        save(root / "train" / f"{number}.png", number)
        save(root / "train" / "crops" / f"{number}.png", 20 + number)
        if number != 3:
            save(root / "test" / f"{number}.png", 10 + number)
    rows = [(n, "ab"[n % 2], part) for part in ("train", "test") for n in range(6)]
    # Validation images lie among the training images, as there is no folder of their own.
    rows[5] = (5, "b", "val")
    text = "file_name,label,split\n" + "".join(f"{n}.png,{c},{part}\n" for n, c, part in rows)
    source = create_source(configure("csv", table(root, text, "labels.csv")), cache)
    assert not source.problems
    folders = [Path(each.path.partition("#")[0]).parent.name for each in source.samples]
    # One file of the test part is missing; what is in no other part serves every row.
    assert folders == ["train"] * 6 + ["test"] * 3 + ["train"] + ["test"] * 2
    assert [each.part for each in source.samples][4:7] == ["train", "validation", "test"]


def test_a_name_of_several_files_is_a_problem(tmp_path, cache):
    for name in ("x/1.png", "y/1.png", "2.png", "2.jpg", "3.png"):
        save(tmp_path / "d" / name, 1)
    path = table(tmp_path / "d", "id,label\n1,a\n2,b\n3,a\n")
    source = create_source(configure("csv", path), cache)
    assert listed(source) == [("3.png", "a", None)]
    first, second = source.problems
    assert first.startswith(f"{path}:2: 1 may be several files below {path.parent}: x/1.png, y/1")
    assert second == f"{path}:3: several files are called 2: 2.jpg, 2.png; name the suffix"


# The hub


def hub(root: Path, suffix: str) -> None:
    """A folder for `imagefolder`, a metadata file in the folder of each part."""
    for part, count in (("train", 10), ("validation", 4), ("test", 4)):
        rows = []
        for number in range(count):
            name = f"shot {number}.png" if number % 2 else f"sub/{number}.png"
            save(root / part / name, len(part) * 100 + number)
            rows.append({"file_name": name, "label": f"kind {number % 2}", "note": "x, y; z"})
        frame = pd.DataFrame(rows)
        if suffix == "csv":
            frame.to_csv(root / part / "metadata.csv", index=False)
        else:
            frame.to_json(root / part / "metadata.jsonl", orient="records", lines=True)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_metadata_is_read_as_the_datasets_library_reads_it(tmp_path, cache, suffix, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    root = tmp_path / "hub"
    hub(root, suffix)
    assert detect_source(str(root)) == suffix
    # Several columns could be labels: the one called label is.
    source = create_source(configure("auto", root), cache)
    loaded = datasets.load_dataset("imagefolder", data_dir=str(root), cache_dir=str(tmp_path / "c"))
    theirs = sorted(
        (part, row["label"], row["image"].convert("RGB").tobytes())
        for part, rows in loaded.items()
        for row in rows
    )
    ours = sorted(
        (each.part, source.classes[each.label], Image.open(each.path).convert("RGB").tobytes())
        for each in source.samples
    )
    assert ours == theirs
    assert len(ours) == 18
    assert not source.problems


def test_paths_that_begin_with_parts_tell_them(tmp_path, cache):
    """One metadata file above folders of parts: a given test part stays one."""
    lines = ["file_name,label"]
    for number in range(6):
        name = f"{'test' if number < 2 else 'train'}/{number}.png"
        save(tmp_path / "d" / name, number)
        lines.append(f"{name},{'ab'[number % 2]}")
    path = table(tmp_path / "d", "\n".join(lines), "metadata.csv")
    source = create_source(configure("csv", path), cache)
    assert [part for _, _, part in listed(source)] == ["test"] * 2 + ["train"] * 4
    assert f"{path}: the folders of its paths tell the parts: test 2, train 4" in source.notices
    save(tmp_path / "d" / "7.png", 7)
    with path.open("a") as file:
        file.write("\n7.png,a")
    source = create_source(configure("csv", path), cache)
    assert {part for _, _, part in listed(source)} == {None}
    assert any("6 of 7 paths lie in folders called for parts" in line for line in source.notices)


# Label Studio (the files are what its own converter writes)


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_label_studio(tmp_path, cache, suffix):
    """Uploads with and without the digits before their names, and local files."""
    root = tmp_path / "export"
    save(root / "upload" / "1" / "0a1b2c3d-kite_1.jpg", 1)
    save(root / "kite_2.jpg", 2)
    save(root / "birds" / "buzzard 1.jpg", 3)
    save(root / "birds" / "buzzard 2.jpg", 4)
    shutil.copy(LABEL_STUDIO / f"choices.{suffix}", root)
    source = create_source(configure("auto", root / f"choices.{suffix}"), cache)
    assert not source.problems
    assert listed(source) == [
        ("0a1b2c3d-kite_1.jpg", "Red kite", None),
        ("kite_2.jpg", "Red kite", None),
        ("buzzard 1.jpg", "Buzzard", None),
        ("buzzard 2.jpg", "Buzzard", None),
    ]
    assert all(each.stamp for each in source.samples)
    assert source.left_out == {"with several labels": 1, "without a label": 1}


def test_files_of_label_studio_elsewhere(tmp_path, cache):
    save(tmp_path / "media" / "upload" / "1" / "0a1b2c3d-kite_1.jpg", 1)
    text = (
        "image,choice\nhttps://labels.example.org/data/upload/1/0a1b2c3d-kite_1.jpg,kite\n"
        's3://bucket/2.jpg,kite\nmissing.jpg,"[""buzzard""]"\n'
    )
    path = table(tmp_path, text)
    config = configure("csv", path, root=str(tmp_path / "media"))
    source = create_source(config, cache)
    assert listed(source) == [
        ("0a1b2c3d-kite_1.jpg", "kite", None),
        ("missing.jpg", "buzzard", None),
    ]
    assert [each.stamp is None for each in source.samples] == [False, True]
    assert source.problems == [
        f"{path}:3: found the address s3://bucket/2.jpg, allowed a file: fetch it, and name "
        "data.root"
    ]


def test_boxes_in_shares_of_label_studio_are_refused(tmp_path, cache):
    shutil.copy(LABEL_STUDIO / "boxes.json", tmp_path)
    source = create_source(configure("jsonl", tmp_path / "boxes.json"), cache)
    assert source.problems[0].startswith(f"{tmp_path}/boxes.json: entry 1: found {{")
    assert "export as COCO" in source.problems[0]
    (tmp_path / "tasks.json").write_text('[{"id": 1, "annotations": [], "data": {"image": "a"}}]')
    with pytest.raises(UserError, match="export as JSON-MIN or CSV instead"):
        create_source(configure("jsonl", tmp_path / "tasks.json"), cache)


# Roboflow


def test_roboflow(tmp_path, cache):
    """One-hot tables with blanks behind the commas, in folders for the parts."""
    root = tmp_path / "roboflow"
    number = 0
    for part, rows in {
        "train": ["1, 0", "0, 1"] * 4 + ["1, 1", "0, 0"],
        "valid": ["1, 0", "0, 1"],
        "test": ["1, 0", "0, 1"],
    }.items():
        name = "Daisy Bud" if part == "train" else '"Daisy Bud"'
        lines = [f"filename, {name}, label"]
        for row in rows:
            number += 1
            save(root / part / f"{number}_jpg.rf.0a{number}.jpg", number)
            lines.append(f"{number}_jpg.rf.0a{number}.jpg, {row}")
        table(root / part, "\n".join(lines) + "\n", "_classes.csv")
    (root / "README.roboflow.txt").write_text("made elsewhere")
    assert detect_source(str(root)) == "csv"
    dataset = prepare(configure("auto", root), cache_dir=cache)
    assert dataset.classes == ["Daisy Bud", "label"]
    assert dataset.summary()["counts"] == {"train": 8, "validation": 2, "test": 2}
    for path, label in zip(dataset.pool.paths, dataset.pool.labels, strict=True):
        assert int(Path(path).name.split("_")[0]) % 2 == (label == 0)
    told = "left out: 2 rows: with several labels 1, without a label (train part) 1"
    assert told in dataset.notices
    assert count_classes(configure("auto", root)) == 2


def test_one_hot_cells_are_0_or_1(tmp_path, cache):
    for number in range(2):
        save(tmp_path / f"{number}.png", number)
    path = table(tmp_path, "filename, a, b\n0.png, 1, 0\n1.png, 2, 0\n", "_classes.csv")
    source = create_source(configure("csv", path), cache)
    assert source.problems == [f"{path}:3: found '2' in column a, allowed 0 or 1"]


def test_boxes_of_roboflow(tmp_path, cache):
    root = tmp_path / "roboflow"
    for start, part in enumerate(("train", "test")):
        lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
        for number in range(4):
            save(root / part / f"{number}.jpg", 10 * start + number)
            lines.append(f"{number}.jpg,20,16,{'ab'[number % 2]},2,3,12,9")
        table(root / part, "\n".join(lines), "_annotations.csv")
    source = create_source(configure("auto", root, crop="box"), cache)
    assert [each.box for each in source.samples] == [(2, 3, 12, 9)] * 8
    assert [part for _, _, part in listed(source)] == ["test"] * 4 + ["train"] * 4
    assert source.classes == ["a", "b"]
