from __future__ import annotations

import pytest

from gsfl_tune.data.sources import detect_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import fill, save


def test_folders(tmp_path):
    assert detect_source(str(fill(tmp_path / "plain", {"a": 1, "b": 1}))) == "folder"
    bird = fill(tmp_path / "CUB_200_2011", {"images/a": 1})
    (bird / "images.txt").touch()
    assert detect_source(str(bird)) == "cub"
    assert detect_source(str(tmp_path)) == "cub"
    # What exists is a path and no pattern.
    assert detect_source(str(fill(tmp_path / "birds [2024]", {"a": 1}))) == "folder"


def test_parquet(tmp_path):
    (tmp_path / "hub" / "data").mkdir(parents=True)
    (tmp_path / "hub" / "README.md").touch()
    (tmp_path / "hub" / "data" / "train-0.parquet").touch()
    for path in (
        str(tmp_path / "hub"),
        str(tmp_path / "hub" / "data"),
        str(tmp_path / "hub" / "data" / "train-0.parquet"),
        str(tmp_path / "hub" / "**" / "*.parquet"),
        "s3://bucket/data",
    ):
        assert detect_source(path) == "parquet"


def test_a_picture_beside_parquet_files_is_of_their_description(tmp_path):
    (tmp_path / "train.parquet").touch()
    save(tmp_path / "logo.png", 1)
    assert detect_source(str(tmp_path)) == "parquet"


def test_what_may_be_two_things(tmp_path):
    fill(tmp_path, {"a": 1})
    (tmp_path / "train.parquet").touch()
    with pytest.raises(UserError, match=r"train\.parquet.*a/000\.png.*set data\.source to"):
        detect_source(str(tmp_path))


def test_tables_and_coco(tmp_path):
    for name, text, source in (
        ("t.csv", "file,label\n", "csv"),
        ("t.TSV", "file\tlabel\n", "csv"),
        ("t.jsonl", '{"file": "a", "label": 1}\n', "jsonl"),
        ("t.json", ' [{"file": "a", "label": 1}]', "jsonl"),
        ("c.json", '\n{"info": {}, "images": [], "annotations": []}', "coco"),
    ):
        (tmp_path / name).write_text(text)
        assert detect_source(str(tmp_path / name)) == source
    entries = [str(tmp_path / "t.csv"), str(tmp_path / "t.TSV")]
    assert detect_source(entries) == "csv"
    with pytest.raises(UserError, match=r"different kinds: .*t\.csv \(csv\), .*c\.json \(coco\)"):
        detect_source([*entries, str(tmp_path / "c.json")])
    (tmp_path / "x.json").write_text('{"name": "package"}')
    with pytest.raises(UserError, match=r"x\.json is neither COCO's JSON .* nor a list of objects"):
        detect_source(str(tmp_path / "x.json"))


TABLE = "file,label\na.png,x\n"


@pytest.mark.parametrize("name", ["metadata.csv", "train.csv", "train/_classes.csv"])
def test_a_table_and_class_folders(tmp_path, name):
    """Where folders say what is seen as well as a table does, nobody is to guess."""
    fill(tmp_path, {"train/a": 1})
    (tmp_path / name).write_text(TABLE)
    assert detect_source(str(tmp_path)) == "csv"
    fill(tmp_path, {"train/b": 1})
    with pytest.raises(
        UserError, match=r"in several ways: csv \(.*csv\), folder \(folders such as a and b\); set"
    ):
        detect_source(str(tmp_path))


def test_tables_that_describe_no_images(tmp_path):
    """Names of classes, and what is no table of images, beside class folders."""
    fill(tmp_path / "d", {"a": 1, "b": 1})
    for name, text in (("classes.csv", TABLE), ("train.csv", "epoch,loss\n1,2\n")):
        (tmp_path / "d" / name).write_text(text)
        assert detect_source(str(tmp_path / "d")) == "folder"
    # Without class folders it is all that tells.
    fill(tmp_path / "e", {"images": 1})
    (tmp_path / "e" / "classes.csv").write_text(TABLE)
    assert detect_source(str(tmp_path / "e")) == "csv"
    (tmp_path / "e" / "metadata.jsonl").write_text('{"file": "a", "label": 1}\n')
    assert detect_source(str(tmp_path / "e")) == "jsonl"
    (tmp_path / "e" / "train.csv").write_text(TABLE)
    with pytest.raises(UserError, match=r"jsonl \(metadata\.jsonl\), csv \(train\.csv\); set"):
        detect_source(str(tmp_path / "e"))


def test_other_things(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        detect_source(str(tmp_path / "nothing"))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="neither an experiment"):
        detect_source(str(tmp_path / "notes.txt"))
