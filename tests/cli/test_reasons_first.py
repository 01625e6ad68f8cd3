"""Reasons and counts come before the line that says that nothing is there."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.export.conftest import CLASSES


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def gone(tmp_path) -> Path:
    """What `to_parquet` of an image folder writes, without the folder, and two unlabelled rows."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": None, "path": f"gone/{number}.png"} for number in range(14)]
    labels = [*(CLASSES[number % 2] for number in range(12)), None, None]
    columns = {"image": pa.array(rows, kind), "label": pa.array(labels)}
    pq.write_table(pa.table(columns), tmp_path / "birds.parquet")
    return tmp_path / "birds.parquet"


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (("data", "FILE"), "after 12 broken image(s) were skipped: 2 classes have"),
        (("evaluate", "BUNDLE", "FILE"), "none of 12 images can be read"),
        (("embed", "BUNDLE", "FILE", "-o", "f.parquet"), "none of 12 images can be read"),
        (("adapt", "BUNDLE", "FILE", "-o", "adapted"), "none of 14 images can be read"),
        (("init", "FILE"), "none of those looked at can be opened"),
        (("search", "FILE"), "none of those looked at can be opened"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_rows_whose_images_are_gone(command, bundle_path, gone, words, last):
    known = {"BUNDLE": bundle_path, "FILE": gone}
    answer = command(*(known.get(word, word) for word in words))
    text = answer.out + answer.err
    reason = "the row has no image bytes, and its file gone/0.png is not there"
    assert reason in text
    assert text.index(reason) < text.index(last)
    if words[0] != "adapt":  # which reads no labels
        assert text.index("left out: 2 rows: without a label 2") < text.index(last)
    assert "Traceback" not in text
    if words[0] == "init":
        assert answer.code == 0
        told = "a search would refuse this data: none of 12 images looked at can be opened"
        assert told in answer.err
    else:
        assert answer.code == 2


@pytest.mark.parametrize("name", ["embed", "predict"])
def test_a_folder_without_an_image(command, bundle_path, tmp_path, name):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").touch()
    out = ("-o", "f.parquet") if name == "embed" else ()
    answer = command(name, bundle_path, tmp_path / "texts", *out)
    assert answer.code == 2
    lines = answer.err.splitlines()
    assert lines.count("left out: 1 file: .txt 1") == 1
    assert lines[-1] != "left out: 1 file: .txt 1"
