from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gsfl_tune.data import load_square, prepare
from gsfl_tune.data.sources import ParquetSource
from gsfl_tune.data.sources._remote import part_of
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, fill, picture


def content(seed):
    stream = io.BytesIO()
    picture(seed).save(stream, format="PNG")
    return stream.getvalue()


def table(labels, *, seed=0, names=None, label="label", image="image"):
    images = [
        {"bytes": content(seed + number), "path": f"{seed + number}.png"}
        for number in range(len(labels))
    ]
    columns = {image: images, label: labels}
    result = pa.table(columns)
    if names is not None:
        features = {
            image: {"_type": "Image"},
            label: {"_type": "ClassLabel", "names": names},
        }
        metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        result = result.replace_schema_metadata(metadata)
    return result


def write(path, *arguments, row_group_size=None, **values):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(*arguments, **values), path, row_group_size=row_group_size)
    return path


NAMES = ["hat", "shoe"]
LABELS = [0, 1] * 5


@pytest.mark.parametrize("row_group_size", [None, 3])
def test_one_file_without_split(tmp_path, cache, row_group_size):
    file = write(tmp_path / "all.parquet", LABELS, names=NAMES, row_group_size=row_group_size)
    dataset = prepare(configure("parquet", file), cache_dir=cache)
    assert dataset.classes == NAMES
    assert len(dataset.pool) + len(dataset.test) == 10
    for images in (dataset.pool, dataset.test):
        for position, (path, label) in enumerate(zip(images.paths, images.labels, strict=True)):
            row = int(path.split("#")[1].split()[0])
            assert f"({row}.png)" in path
            assert label == LABELS[row]
            np.testing.assert_array_equal(
                images.gather(np.array([position]))[0], load_square(content(row), 19)[0]
            )


def test_many_files_tell_their_parts(tmp_path, cache):
    write(tmp_path / "data" / "train-00000-of-00002.parquet", LABELS, names=NAMES)
    write(tmp_path / "data" / "train-00001-of-00002.parquet", LABELS, names=NAMES, seed=100)
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", [0, 1], names=NAMES, seed=200)
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [0, 1, 1], names=NAMES, seed=300)
    for path in (
        str(tmp_path),
        str(tmp_path / "data" / "*.parquet"),
        [str(tmp_path / "data" / "t*.parquet"), str(tmp_path / "data" / "val*.parquet")],
    ):
        dataset = prepare(configure("parquet", path), cache_dir=cache)
        counts = dataset.summary()["counts"]
        assert counts == {"train": 20, "validation": 2, "test": 3}
        assert dataset.given_validation


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("x/train.parquet", "train"),
        ("x/train-00000-of-00001-abc.parquet", "train"),
        ("x/validation_1.parquet", "validation"),
        ("x/valid.parquet", "validation"),
        ("x/val0.parquet", "validation"),
        ("x/Test.parquet", "test"),
        ("default/test/0000.parquet", "test"),
        ("x/all.parquet", None),
        ("x/trainers.parquet", None),
        ("x/valleys.parquet", None),
        ("x/latest.parquet", None),
        ("x/contest.parquet", None),
        ("x/birds_train.parquet", "train"),
        ("x/birdsTest.parquet", "test"),
        ("x/birds.dev.parquet", "validation"),
        ("x/evaluation-0.parquet", "test"),
        ("x/trainset.parquet", "train"),
        ("x/trainval.parquet", "train"),
        ("default/partial-train/0000.parquet", "train"),
    ],
)
def test_which_part_a_name_tells(name, part):
    assert part_of(name) == part


def test_labels_without_names(tmp_path, cache):
    file = write(tmp_path / "a.parquet", [7, 3] * 4)
    dataset = prepare(configure("parquet", file), cache_dir=cache)
    assert dataset.classes == ["3", "7"]
    assert dataset.summary()["class_counts"]["7"].keys() == {"train", "validation", "test"}


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_string_labels(tmp_path, cache, kind):
    data = table(["b", "a"] * 4)
    column = pa.array(["b", "a"] * 4).cast(kind) if kind == pa.string() else None
    column = column if column is not None else pa.array(["b", "a"] * 4).dictionary_encode()
    pq.write_table(data.set_column(1, "label", column), tmp_path / "a.parquet")
    dataset = prepare(configure("parquet", tmp_path / "a.parquet"), cache_dir=cache)
    assert dataset.classes == ["a", "b"]
    assert len(dataset.pool) + len(dataset.test) == 8


def test_a_plain_binary_column_and_other_names(tmp_path, cache):
    data = pa.table({"img": [content(n) for n in range(8)], "fine_label": LABELS[:8]})
    pq.write_table(data, tmp_path / "a.parquet")
    dataset = prepare(configure("parquet", tmp_path / "a.parquet"), cache_dir=cache)
    assert dataset.classes == ["0", "1"]


def test_labels_outside_the_list(tmp_path, cache):
    write(tmp_path / "a.parquet", [*LABELS, 2, -1, None], names=NAMES)
    with pytest.raises(UserError) as error:
        prepare(configure("parquet", tmp_path / "a.parquet"), cache_dir=cache)
    assert str(error.value).splitlines() == [
        "left out: 2 rows: without a label 2",
        f"{tmp_path / 'a.parquet'}: labels outside the 2 classes: row 10 (2)",
    ]


def test_rows_without_a_label_are_left_out_and_counted(tmp_path, cache):
    write(tmp_path / "train.parquet", [*LABELS, -1, None], names=NAMES)
    write(tmp_path / "test.parquet", [-1, -1, -1], names=NAMES, seed=100)
    dataset = prepare(configure("parquet", tmp_path), cache_dir=cache)
    # A part without labels is no test part: one is taken from the rest.
    assert not dataset.given_test
    counts = dataset.summary()["counts"]
    assert sum(counts.values()) == 10
    assert counts["test"] == 2
    assert dataset.notices == [
        "no row of the test part has a label: there is no test part, and one is taken from the "
        "rest where it is needed",
        "left out: 5 rows: without a label (test part) 3, without a label (train part) 2",
    ]


@pytest.mark.parametrize("missing", ["-1", "", " ", None])
def test_names_without_a_label(tmp_path, cache, missing):
    write(tmp_path / "a.parquet", [*["a", "b"] * 5, missing])
    source = ParquetSource(str(tmp_path), cache)
    assert source.classes == ["a", "b"]
    assert source.left_out == {"without a label": 1}


@pytest.mark.parametrize(
    "column", [pa.array([0.0, 1.0] * 4 + [None]), pa.array([False, True] * 4 + [None])]
)
def test_labels_as_pandas_writes_them(tmp_path, cache, column):
    data = table([0] * 9).set_column(1, "label", column)
    data = data.append_column("__index_level_0__", pa.array(range(9)))
    pq.write_table(data, tmp_path / "a.parquet")
    dataset = prepare(configure("parquet", tmp_path / "a.parquet"), cache_dir=cache)
    assert dataset.classes == (
        ["0", "1"] if pa.types.is_floating(column.type) else ["False", "True"]
    )
    assert dataset.notices == ["left out: 1 row: without a label 1"]


def test_views_of_strings_and_bytes(tmp_path, cache):
    columns = {
        "image": pa.array([content(n) for n in range(8)], pa.binary_view()),
        "label": pa.array(["b", "a"] * 4, pa.string_view()),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    dataset = prepare(configure("parquet", tmp_path / "a.parquet"), cache_dir=cache)
    assert dataset.classes == ["a", "b"]
    assert len(dataset.pool) + len(dataset.test) == 8
    assert not dataset.broken


def test_images_that_lie_beside_the_file(tmp_path, cache):
    (tmp_path / "pictures").mkdir()
    for number in range(8):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(content(number))
    rows = [{"bytes": None, "path": f"pictures/{number}.png"} for number in range(9)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": pa.array(rows, kind), "label": pa.array([0, 1] * 4 + [0])}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    config = configure("parquet", tmp_path / "a.parquet", max_broken=0.5)
    dataset = prepare(config, cache_dir=cache)
    assert len(dataset.pool) + len(dataset.test) == 8
    (broken,) = dataset.broken
    assert broken.reason == ("the row has no image bytes, and its file pictures/8.png is not there")


@pytest.mark.parametrize("embedded", [False, True])
def test_what_the_datasets_library_writes_of_a_folder(tmp_path, cache, monkeypatch, embedded):
    """`to_parquet` keeps the paths of the images and no bytes; what is uploaded has the bytes."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    from datasets.table import embed_table_storage

    root = fill(tmp_path / "photographs", {"cat": 10, "dog": 10})
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(root), split="train", cache_dir=str(tmp_path / "hub")
    )
    if embedded:
        loaded = loaded.with_format("arrow").map(embed_table_storage, batched=True)
    loaded.to_parquet(tmp_path / "a.parquet")
    first = pq.read_table(tmp_path / "a.parquet").column("image")[0].as_py()
    if embedded:
        assert first["bytes"] == (root / "cat" / "000.png").read_bytes()
        (root / "cat").rename(tmp_path / "elsewhere")
    else:
        assert first == {"bytes": None, "path": str(root / "cat" / "000.png")}
    dataset = prepare(configure("parquet", tmp_path / "a.parquet"), cache_dir=cache)
    assert dataset.classes == ["cat", "dog"]
    assert (len(dataset.pool) + len(dataset.test), dataset.broken) == (20, [])


def test_which_of_several_columns(tmp_path, cache):
    data = table(LABELS * 2).rename_columns(["image", "fine"])
    data = data.append_column("coarse", pa.array(["x"] * 6 + ["y"] * 6 + ["z"] * 8))
    pq.write_table(data, tmp_path / "a.parquet")
    with pytest.raises(UserError) as error:
        prepare(configure("parquet", tmp_path / "a.parquet"), cache_dir=cache)
    assert "fine (int64), coarse (string); data.label_column names" in str(error.value)
    config = configure("parquet", tmp_path / "a.parquet", label_column="coarse")
    assert prepare(config, cache_dir=cache).classes == ["x", "y", "z"]
    for given, message in (
        ({"label_column": "corse"}, "no column corse, but the columns image"),
        ({"label_column": "image"}, "allowed integers, strings, booleans"),
        ({"image_column": "fine"}, "column fine is int64, allowed struct<bytes, path> or binary"),
    ):
        config = configure("parquet", tmp_path / "a.parquet", **given)
        with pytest.raises(UserError, match=message):
            prepare(config, cache_dir=cache)


def test_configurations_side_by_side(tmp_path, cache):
    for number, folder in enumerate(("cropped", "full")):
        write(tmp_path / folder / "train-0.parquet", LABELS, names=NAMES, seed=100 * number)
        write(tmp_path / folder / "test-0.parquet", [0, 1], names=NAMES, seed=1000 + number)
    with pytest.raises(
        UserError, match=r"2 configurations side by side.*cropped, full.*data\.config"
    ):
        prepare(configure("parquet", tmp_path), cache_dir=cache)
    dataset = prepare(configure("parquet", tmp_path, config="full"), cache_dir=cache)
    assert dataset.summary()["counts"] == {"train": 8, "validation": 2, "test": 2}
    with pytest.raises(UserError, match="has no fulll, but cropped, full"):
        prepare(configure("parquet", tmp_path, config="fulll"), cache_dir=cache)


def test_shards_in_folders_are_one_configuration(tmp_path, cache):
    for number in range(2):
        write(tmp_path / f"part-{number}" / "a.parquet", LABELS, names=NAMES, seed=100 * number)
    dataset = prepare(configure("parquet", tmp_path), cache_dir=cache)
    assert len(dataset.pool) + len(dataset.test) == 20


def test_folders_tell_the_part(tmp_path, cache):
    write(tmp_path / "default" / "partial-train" / "0000.parquet", LABELS, names=NAMES)
    write(tmp_path / "default" / "test" / "0000.parquet", [0, 1], names=NAMES, seed=100)
    dataset = prepare(configure("parquet", tmp_path), cache_dir=cache)
    assert dataset.summary()["counts"] == {"train": 8, "validation": 2, "test": 2}


def test_a_test_part_alone_is_used_without_a_split(tmp_path, cache):
    write(tmp_path / "test" / "a.parquet", LABELS, names=NAMES)
    dataset = prepare(configure("parquet", tmp_path), cache_dir=cache)
    assert not dataset.given_test
    assert len(dataset.pool) + len(dataset.test) == 10
    assert "used as images without a split" in dataset.notices[0]


@pytest.mark.parametrize("name", ["birds_train_test.parquet", "traintest.parquet"])
def test_names_that_tell_two_parts_are_refused(tmp_path, cache, name):
    write(tmp_path / name, LABELS, names=NAMES)
    with pytest.raises(UserError, match="holds a word for a part"):
        prepare(configure("parquet", tmp_path), cache_dir=cache)


def test_a_file_and_its_folder_that_tell_two_parts_are_refused(tmp_path, cache):
    write(tmp_path / "test" / "train.parquet", LABELS, names=NAMES)
    with pytest.raises(UserError, match="lies in a folder that is called test"):
        prepare(configure("parquet", tmp_path), cache_dir=cache)


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    (tmp_path / "a.parquet").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    with pytest.raises(UserError, match="a git-LFS pointer, not the file itself"):
        ParquetSource(str(tmp_path / "a.parquet"), tmp_path)


def test_a_test_label_that_training_lacks(tmp_path, cache):
    write(tmp_path / "train.parquet", ["a", "b"] * 4)
    write(tmp_path / "test.parquet", ["a", "z"], seed=100)
    with pytest.raises(UserError, match=r"labels outside the 2 classes: row 1 \('z'\)"):
        prepare(configure("parquet", tmp_path), cache_dir=cache)


def test_files_that_disagree(tmp_path, cache):
    write(tmp_path / "train.parquet", LABELS, names=NAMES)
    write(tmp_path / "test.parquet", [0], names=NAMES[::-1], seed=100)
    write(tmp_path / "more.parquet", [0], names=NAMES, seed=200)
    with pytest.raises(UserError) as error:
        prepare(configure("parquet", tmp_path), cache_dir=cache)
    assert "class names differ" in str(error.value)
    assert "these do not" in str(error.value)
    assert "more.parquet" in str(error.value)


def test_rows_without_or_with_broken_images(tmp_path, cache):
    data = table(LABELS, names=NAMES)
    images = data.column("image").to_pylist()
    images[3] = {"bytes": None, "path": "lost.png"}
    images[4] = {"bytes": b"junk", "path": "junk.png"}
    data = data.set_column(0, "image", pa.array(images, data.schema.field("image").type))
    pq.write_table(data, tmp_path / "a.parquet")
    config = configure("parquet", tmp_path / "a.parquet", max_broken=0.5)
    dataset = prepare(config, cache_dir=cache)
    found = {image.path.split("(")[1]: image.reason for image in dataset.broken}
    assert found == {
        "lost.png)": "the row has no image bytes, and its file lost.png is not there",
        "junk.png)": "not an image that Pillow can read",
    }


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [1]}, r"expected a column of images .*, found the columns label \(int64\)"),
        (
            {"image": [{"bytes": b"x", "path": "p"}], "value": [1.0]},
            r"expected a column of labels .*, value \(double\)",
        ),
        ({"a": [b"x"], "b": [b"x"], "label": [1]}, "several columns hold images: a, b"),
        (
            {"image": [{"bytes": b"x", "path": "p"}], "label": [0.5]},
            "found the label 0.5, allowed whole numbers",
        ),
    ],
)
def test_files_with_other_columns(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message):
        ParquetSource(str(tmp_path / "a.parquet"), tmp_path)


def test_wrong_paths(tmp_path):
    with pytest.raises(UserError, match=r"data\.path is missing"):
        ParquetSource(None, tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        ParquetSource(str(tmp_path / "nothing.parquet"), tmp_path)
    with pytest.raises(UserError, match="no Parquet files match"):
        ParquetSource(str(tmp_path / "x*.parquet"), tmp_path)
    with pytest.raises(UserError, match="no Parquet files match"):
        ParquetSource(str(tmp_path), tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        ParquetSource(str(tmp_path / "a.parquet"), tmp_path)
    with pytest.raises(UserError, match="cannot be opened"):
        ParquetSource("nosuchscheme://bucket/a.parquet", tmp_path)
