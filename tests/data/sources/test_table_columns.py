"""Columns, labels and files of tables: what is understood, and what is said where it is not."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from gsfl_tune.data import prepare
from gsfl_tune.data.sources import TextTableSource, create_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, save
from tests.data.sources.test_table import listed, table

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
    path.write_text(path.read_text().replace("test", "fold 3"))
    for split_column in (None, "split"):
        source = create_source(configure("csv", path, split_column=split_column), cache)
        assert source.problems == [
            f"{path}:5: found the part 'fold 3', allowed train, validation, test, or nothing"
        ]
    # Of a row without a label it does not matter.
    path.write_text(path.read_text().replace("b,fold 3", ",unlabelled"))
    assert not create_source(configure("csv", path), cache).problems
    # What is called split and tells none is no such column.
    path.write_text("file,label,split\n0.png,a,fold 1\n1.png,b,fold 2\n")
    source = create_source(configure("csv", path), cache)
    assert {row[2] for row in listed(source)} == {None}
    assert any("column split holds other words" in notice for notice in source.notices)


# Labels


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["10", "9", "9", "10"], ["9", "10"]),
        (["10.0", "9.0", "", "9.0"], ["9", "10"]),
        (["1", "-1", "0", "1"], ["0", "1"]),
        (["b", "-1", "a", "b"], ["a", "b"]),
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
        (b"file,label\n0.png,\xe9\n", r"t\.csv:2: found bytes that are not UTF-8, allowed text"),
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
