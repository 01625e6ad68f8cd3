"""Rows that tell their part: no test image becomes a training image without a word."""

from __future__ import annotations

import io
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from gsfl_tune.data.sources import create_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, picture, save

PARTS = ["train"] * 6 + ["test"] * 4
LABELS = [0, 1] * 5


def saved_rows(split, *, name="split", **columns):
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["wren", "robin"]),
            name: datasets.Value("string"),
            **{key: feature for key, (feature, _) in columns.items()},
        }
    )
    content = {
        "image": [picture(number) for number in range(len(split))],
        "label": LABELS[: len(split)],
        name: split,
        **{key: values for key, (_, values) in columns.items()},
    }
    return datasets.Dataset.from_dict(content, features=features)


def parts(source):
    return [sample.part for sample in source.samples]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("name", ["split", "Subset", "data set"])
def test_a_column_of_parts_that_the_datasets_library_wrote(tmp_path, cache, kind, name):
    rows = saved_rows(PARTS, name=name)
    path = tmp_path / "birds"
    if kind == "arrow":
        rows.save_to_disk(path)
    else:
        rows.to_parquet(path / "birds.parquet")
    source = create_source(configure("auto", path), cache)
    assert source.classes == ["wren", "robin"]
    assert parts(source) == PARTS
    assert any(f"column {name} tells the parts: test 4, train 6" in n for n in source.notices)


def test_rows_of_a_saved_dataset_keep_their_parts_in_another_order(tmp_path, cache):
    saved_rows(PARTS).select([9, 0, 8, 1, 2]).save_to_disk(tmp_path / "birds")
    source = create_source(configure("arrow", tmp_path / "birds"), cache)
    assert parts(source) == ["test", "train", "test", "train", "train"]


def test_labels_beside_a_column_of_parts(tmp_path, cache):
    table = saved_rows(PARTS).data.table.rename_columns(["image", "species", "split"])
    pq.write_table(table, tmp_path / "birds.parquet")
    source = create_source(configure("parquet", tmp_path), cache)
    assert source.classes == ["0", "1"]
    assert parts(source) == PARTS


def test_training_rows_alone_name_the_classes(tmp_path, cache):
    table = saved_rows(PARTS).data.table.replace_schema_metadata(None)
    labels = pa.array([0, 1] * 3 + [2] * 4)
    pq.write_table(table.set_column(1, "label", labels), tmp_path / "birds.parquet")
    source = create_source(configure("parquet", tmp_path), cache)
    assert source.classes == ["0", "1"]
    assert "labels outside the 2 classes: row 6 (2)" in source.problems[0]


def test_the_name_of_a_file_counts_unless_the_column_is_named(tmp_path, cache):
    saved_rows(["train"] * 6 + ["dev"] * 4).to_parquet(tmp_path / "train.parquet")
    saved_rows(["test"] * 2).to_parquet(tmp_path / "test.parquet")
    source = create_source(configure("parquet", tmp_path), cache)
    assert parts(source) == ["test"] * 2 + ["train"] * 10
    (notice,) = [each for each in source.notices if "column split" in each]
    assert "tells another part of 4 rows than the name of the file (train), which counts" in notice
    source = create_source(configure("parquet", tmp_path, split_column="split"), cache)
    assert parts(source) == ["test"] * 2 + ["train"] * 6 + ["validation"] * 4


def test_words_that_name_no_part(tmp_path, cache):
    saved_rows(["train"] * 6 + ["holdout"] * 4).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(
        UserError, match="column split: found the parts holdout, allowed train, val"
    ):
        create_source(configure("parquet", tmp_path), cache)
    saved_rows(["red", "blue"] * 5, name="set").to_parquet(tmp_path / "a.parquet")
    source = create_source(configure("parquet", tmp_path), cache)
    assert set(parts(source)) == {None}
    assert any("column set holds other words than those for parts" in n for n in source.notices)
    with pytest.raises(UserError, match=r"data\.split_column: no column x, but"):
        create_source(configure("parquet", tmp_path, split_column="x"), cache)
    with pytest.raises(UserError, match=r"data\.split_column: column label is int64, allowed str"):
        create_source(configure("parquet", tmp_path, split_column="label"), cache)


def test_finer_classes_in_another_column_are_said(tmp_path, cache):
    fine = datasets.ClassLabel(names=["a", "b", "c"]), [0, 1, 2, 0, 1] * 2
    saved_rows(PARTS, fine=fine).to_parquet(tmp_path / "a.parquet")
    source = create_source(configure("parquet", tmp_path), cache)
    assert any(
        "column label holds the labels, and not fine (3 classes)" in n for n in source.told()
    )
    source = create_source(configure("parquet", tmp_path, label_column="label"), cache)
    assert not any("and not fine" in notice for notice in source.told())


def test_folders_in_a_shard(tmp_path, cache):
    with webdataset.TarWriter(str(tmp_path / "birds.tar")) as writer:
        for number, part in enumerate(PARTS):
            stream = io.BytesIO()
            picture(number).save(stream, format="PNG")
            key = f"{part}/{number}"
            writer.write({"__key__": key, "png": stream.getvalue(), "cls": LABELS[number]})
    source = create_source(configure("webdataset", tmp_path), cache)
    assert parts(source) == PARTS
    assert any("the folders in it tell the parts: test 4, train 6" in n for n in source.notices)


def test_folders_in_the_paths_of_coco(tmp_path, cache):
    images = [
        {"id": number, "file_name": f"{part}/{number}.png"} for number, part in enumerate(PARTS)
    ]
    for number, image in enumerate(images):
        save(tmp_path / image["file_name"], number)
    content = {
        "images": images,
        "annotations": [
            {"id": n, "image_id": n, "category_id": label} for n, label in enumerate(LABELS)
        ],
        "categories": [{"id": 0, "name": "wren"}, {"id": 1, "name": "robin"}],
    }
    (tmp_path / "birds.json").write_text(json.dumps(content))
    source = create_source(configure("coco", tmp_path / "birds.json"), cache)
    assert parts(source) == PARTS
    assert any("paths tell the parts: test 4, train 6" in notice for notice in source.notices)


def csv_of(folder, header, rows):
    for number in range(len(rows)):
        save(folder / f"{number}.png", number)
    lines = [f"{number}.png,{row}" for number, row in enumerate(rows)]
    (folder / "t.csv").write_text("\n".join([f"file,label,{header}", *lines]))
    return configure("csv", folder / "t.csv")


@pytest.mark.parametrize("header", ["data set", "Usage", "my column"])
def test_a_column_of_parts_in_a_table_may_have_any_name(tmp_path, cache, header):
    words = {"train": "Training", "test": "PublicTest"}
    rows = [f"{'ab'[n % 2]},{words[part]}" for n, part in enumerate(PARTS)]
    source = create_source(csv_of(tmp_path, header, rows), cache)
    assert parts(source) == PARTS
    assert f"{tmp_path}/t.csv: column {header} tells the parts" in source.notices


def test_two_columns_of_parts(tmp_path, cache):
    rows = [f"{'ab'[n % 2]},{part},{part}" for n, part in enumerate(PARTS)]
    config = csv_of(tmp_path, "one,two", rows)
    with pytest.raises(UserError, match=r"several columns may tell the parts: one, two; data\.spl"):
        create_source(config, cache)
    chosen = config.model_copy(update={"split_column": "two"})
    assert parts(create_source(chosen, cache)) == PARTS


def test_a_column_of_0_and_1_that_may_tell_the_parts_is_said(tmp_path, cache):
    rows = [f"{'ab'[n % 2]},{int(part == 'train')}" for n, part in enumerate(PARTS)]
    source = create_source(csv_of(tmp_path, "is_train", rows), cache)
    assert any("column is_train may tell the parts, and is not used" in n for n in source.notices)
    table = saved_rows(PARTS, name="note").data.table
    bits = table.append_column("is_train", pa.array([part == "train" for part in PARTS]))
    pq.write_table(bits, tmp_path / "t.parquet")
    source = create_source(configure("parquet", tmp_path / "t.parquet"), cache)
    assert any("column is_train may tell the parts, and is not used" in n for n in source.notices)
    # Trains may be a class.
    (tmp_path / "t.csv").write_text("file,bus,train\n0.png,0,1\n1.png,1,0\n2.png,0,1\n")
    source = create_source(configure("csv", tmp_path / "t.csv"), cache)
    assert source.classes == ["bus", "train"]
    assert not any("may tell the parts" in notice for notice in source.notices)


def test_finer_labels_beside_a_column_called_label_are_said(tmp_path, cache):
    rows = [f"{'ab'[n % 2]},{'abcd'[n % 4]}" for n in range(10)]
    source = create_source(csv_of(tmp_path, "species", rows), cache)
    assert source.classes == ["a", "b"]
    assert any("column label holds the labels, and not species" in n for n in source.notices)
