"""Tables of images as people get them: from Kaggle, the hub, Label Studio, Roboflow."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from gsfl_tune.data import prepare
from gsfl_tune.data.sources import TextTableSource, count_classes, create_source, detect_source
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


# Columns


@pytest.mark.parametrize(
    ("header", "given", "expected"),
    [
        ("Image,Id", {}, ("Image", "Id")),  # humpback whales
        ("id,image,species", {}, ("image", "species")),
        (",path,label", {}, ("path", "label")),  # the index of pandas
        ("file name;Class", {}, ("file name", "Class")),
        ("id,photograph,label", {}, ("photograph", "label")),  # by what it holds
        ("photo,what", {"image_column": "photo"}, ("photo", "what")),
        ("name,file,genus", {"label_column": "genus"}, ("file", "genus")),
    ],
)
def test_which_columns(tmp_path, cache, header, given, expected):
    columns = header.replace(";", ",").split(",")
    for number in range(4):
        save(tmp_path / f"{number}.png", number)
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";" if ";" in header else ",")
        writer.writerow(columns)
        for number in range(4):
            cells = dict.fromkeys(columns, f"filler {number}")
            cells |= {expected[0]: f"{number}.png", expected[1]: "ab"[number % 2]}
            writer.writerow([cells[name] for name in columns])
    source = create_source(configure("csv", path, **given), cache)
    assert [row[:2] for row in listed(source)] == [(f"{n}.png", "ab"[n % 2]) for n in range(4)]


def test_columns_that_are_passed_over_are_said(tmp_path, cache):
    save(tmp_path / "0.png", 0)
    path = table(tmp_path, "id,file,species,genus\n1,0.png,a,b\n")
    assert create_source(configure("csv", path), cache).notices == [
        f"{path}: column species holds the labels, and not genus; data.label_column chooses"
    ]


@pytest.mark.parametrize(
    ("header", "given", "message"),
    [
        ("file,species,breed", {}, "several columns may hold the labels: species, breed; data.lab"),
        ("photo,label", {}, "expected a column of files .* found the columns photo, label"),
        ("file", {}, r"expected a column of labels .* found the columns file; data\.label_column"),
        ("file,label", {"image_column": "x"}, r"data\.image_column: no column x, but the columns"),
        ("file,label", {"label_column": "x"}, r"data\.label_column names it"),
        ("file,label", {"split_column": "x"}, r"data\.split_column: no column x"),
        ("file,label,label", {}, "t.csv:1: columns that appear more than once: label"),
        ("a.jpg,cat", {}, "t.csv:1: found a.jpg, cat where names of columns are expected"),
    ],
)
def test_columns_that_are_not_clear(tmp_path, cache, header, given, message):
    cells = ",".join("x" for _ in header.split(","))
    path = table(tmp_path, f"{header}\n{cells}\n")
    with pytest.raises(UserError, match=message):
        create_source(configure("csv", path, **given), cache)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiters_and_encodings(tmp_path, cache, delimiter, encoding):
    path = tmp_path / ("t.tsv" if delimiter == "\t" else "t.csv")
    rows = [(f"dir/é {number}.png", f"a{delimiter} “{number % 2}”") for number in range(4)]
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["file name", "class label", "the rest"])
        writer.writerows((*row, "two\nlines") for row in rows)
    for number, (name, _) in enumerate(rows):
        save(tmp_path / name, number)
    config = configure("auto", path, label_column="class label")
    source = create_source(config, cache)
    assert [row[:2] for row in listed(source)] == [(Path(f).name, c) for f, c in rows]


def test_a_column_of_parts(tmp_path, cache):
    words = ["train", "Training", "val", "test", "", "train"]
    lines = [f"{n}.png,{'ab'[n % 2]},{word}" for n, word in enumerate(words)]
    for number in range(6):
        save(tmp_path / f"{number}.png", number)
    path = table(tmp_path, "file,label,split\n" + "\n".join(lines))
    parts = ["train", "train", "validation", "test", None, "train"]
    assert [row[2] for row in listed(create_source(configure("csv", path), cache))] == parts
    # What is called split and tells none is no such column, unless somebody says so.
    path.write_text(path.read_text().replace("test", "fold 3"))
    source = create_source(configure("csv", path), cache)
    assert {row[2] for row in listed(source)} == {None}
    assert any("column split holds other words" in notice for notice in source.notices)
    source = create_source(configure("csv", path, split_column="split"), cache)
    assert source.problems == [
        f"{path}:5: found the part 'fold 3', allowed train, validation, test, or nothing"
    ]


# Labels


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["10", "9", "9", "10"], ["9", "10"]),
        (["10.0", "9.0", "", "9.0"], ["9", "10"]),
        (["1", "-1", "0", "1"], ["0", "1"]),
        (["010", "9", "9", "010"], ["010", "9"]),
        (["b", "a", " a ", "b"], ["a", "b"]),
    ],
)
def test_classes_are_numbers_or_names(tmp_path, cache, labels, classes):
    for number in range(4):
        save(tmp_path / f"{number}.png", number)
    path = table(tmp_path, "file,label\n" + "".join(f"{n}.png,{x}\n" for n, x in enumerate(labels)))
    source = create_source(configure("csv", path), cache)
    assert source.classes == classes
    missing = sum(label in ("", "-1") for label in labels)
    assert source.left_out == ({"without a label": 1} if missing else {})
    assert len(source.samples) == 4 - missing


def test_json_values(tmp_path, cache):
    values = [3, 3.0, True, None, "x", ["x"], {"choices": ["x", "y"]}, 2.5]
    lines = []
    for number, value in enumerate(values):
        save(tmp_path / f"{number}.png", number)
        lines.append(json.dumps({"file": f"{number}.png", "label": value}))
    path = table(tmp_path, "\n".join([*lines, "[1]", "{"]), "t.jsonl")
    source = create_source(configure("jsonl", path), cache)
    assert source.classes == ["3", "True", "x"]
    assert len(source.samples) == 5
    assert source.left_out == {"without a label": 1, "with several labels": 1}
    assert source.problems[0] == f"{path}:9: found a list, allowed an object {{...}}"
    assert source.problems[1].startswith(f"{path}:10: cannot be read as JSON: ")
    assert source.problems[2] == f"{path}:8: found the label 2.5, allowed whole numbers or text"


def test_labels_that_training_lacks(tmp_path, cache):
    for number in range(6):
        save(tmp_path / f"{number}.png", number)
    table(tmp_path, "file,label\n0.png,a\n1.png,a\n2.png,b\n3.png,b\n", "train.csv")
    test = table(tmp_path, "file,label\n4.png,a\n5.png,c\n", "test.csv")
    source = create_source(configure("csv", tmp_path), cache)
    assert source.classes == ["a", "b"]
    assert source.problems == [f"labels outside the 2 classes of the training part: {test}:3 ('c')"]
    scored = create_source(configure("csv", tmp_path), cache, scoring=True)
    assert scored.classes == ["a", "b", "c"]
    assert not scored.problems


def test_a_file_in_several_rows(tmp_path, cache):
    for number in range(3):
        save(tmp_path / f"{number}.png", number)
    rows = ["0.png,a", "0.png,a", "1.png,a", "1.png,b", "2.png,b", ",b"]
    path = table(tmp_path, "file,label\n" + "\n".join(rows))
    source = create_source(configure("csv", path), cache)
    assert listed(source) == [("0.png", "a", None), ("2.png", "b", None)]
    assert source.left_out == {
        "the same file and label again": 1,
        "of files with several labels": 2,
        "without a file name": 1,
    }


def test_a_missing_file_is_broken(tmp_path, cache):
    lines = ["file,label"]
    for number in range(20):
        lines.append(f"{number}.png,{'ab'[number % 2]}")
        if number:
            save(tmp_path / f"{number}.png", number)
    path = table(tmp_path, "\n".join(lines))
    dataset = prepare(configure("csv", path, max_broken=0.1), cache_dir=cache)
    assert [(each.path, each.reason) for each in dataset.broken] == [
        (f"{tmp_path}/0.png", "No such file or directory")
    ]


# Files


def test_several_tables(tmp_path, cache):
    for number in range(4):
        save(tmp_path / f"{number}.png", number)
    one = table(tmp_path, "file,label\n0.png,a\n1.png,b\n", "one.csv")
    two = table(tmp_path, "file,label\n2.png,a\n3.png,b\n", "two.csv")
    both = TextTableSource([str(one), str(two)], "csv")
    assert len(both.samples) == 4
    with pytest.raises(UserError, match=r"several tables, and no name tells a part: .*one\.csv"):
        TextTableSource(str(tmp_path), "csv")
    one.rename(tmp_path / "train.csv")
    source = TextTableSource(str(tmp_path), "csv")
    assert len(source.samples) == 2
    assert f"not read: {two}: its name tells no part, as those beside it do" in source.notices
    # Named, it is not passed over.
    named = TextTableSource([str(tmp_path / "train.csv"), str(two)], "csv")
    assert named.problems == [
        f"data.path: some tables tell their part (train, validation, test) and these do not: {two}"
    ]
    with pytest.raises(UserError, match=r"data\.path: .*nothing does not exist"):
        TextTableSource(str(tmp_path / "nothing"), "csv")
    with pytest.raises(UserError, match=r"holds no tables of images \(\.jsonl"):
        TextTableSource(str(tmp_path), "jsonl")


def test_a_test_table_alone_is_all_there_is(tmp_path, cache):
    for number in range(8):
        save(tmp_path / f"{number}.png", number)
    rows = "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(8))
    path = table(tmp_path, f"file,label\n{rows}", "test.csv")
    dataset = prepare(configure("csv", path), cache_dir=cache)
    assert not dataset.given_test
    assert any("used as images without a split" in notice for notice in dataset.notices)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"t\.csv: empty"),
        (b"\n \n", r"t\.csv: found no header"),
        (b'file,label\n0.png,a\n"1.png,a\n', r"t\.csv:3: cannot be read as CSV: unexpected end"),
        (b"file,label\n0.png,\xe9\n", r"t\.csv:2: found bytes that are no UTF-8, allowed text"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"t\.csv: a git-LFS pointer, not the fi"),
    ],
)
def test_files_that_are_no_tables(tmp_path, cache, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        create_source(configure("csv", tmp_path / "t.csv"), cache)


def test_rows_of_another_length_are_named(tmp_path, cache):
    save(tmp_path / "0.png", 0)
    path = table(tmp_path, 'file,label\n\n0.png,"a\nb"\n1.png\n2.png,a,b\n')
    source = create_source(configure("csv", path), cache)
    assert source.problems == [
        f"{path}: found another number of fields than the 2 of the header in lines 5 (1), 6 (3)"
    ]
    assert len(source.samples) == 1


def test_root_must_be_a_folder(tmp_path, cache):
    path = table(tmp_path, "file,label\n0.png,a\n")
    with pytest.raises(UserError, match=r"data\.root: .* is not a folder"):
        create_source(configure("csv", path, root=str(path)), cache)
