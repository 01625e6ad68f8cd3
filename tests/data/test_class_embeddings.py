"""Files of embeddings of classes, right and wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from gsfl_tune.data.class_embeddings import has_embeddings, read_class_embeddings
from gsfl_tune.experiment.errors import UserError

CLASSES = ["Épervier", "wren", "robin"]
ROWS = np.arange(1, 13, dtype=np.float32).reshape(3, 4)


def as_numpy(folder: Path) -> Path:
    np.save(folder / "rows.npy", ROWS.astype(np.float64))
    return folder / "rows.npy"


def as_tensor(folder: Path) -> Path:
    save_file({"embeddings": ROWS}, folder / "one.safetensors")
    return folder / "one.safetensors"


def as_tensors(folder: Path) -> Path:
    named = {
        name: ROWS[place].copy() for place, name in enumerate(["E\u0301pervier", *CLASSES[1:]])
    }
    save_file(named, folder / "named.safetensors")
    return folder / "named.safetensors"


def as_parquet(folder: Path, classes=CLASSES, rows=ROWS) -> Path:
    # In another order: rows are found by their names.
    columns = {"embedding": [list(map(float, row)) for row in rows[::-1]], "class": classes[::-1]}
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    return folder / "rows.parquet"


@pytest.mark.parametrize("write", [as_numpy, as_tensor, as_tensors, as_parquet])
def test_rows_are_those_of_the_classes(tmp_path, write):
    file = write(tmp_path)
    assert has_embeddings(file)
    found = read_class_embeddings(file, CLASSES)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ROWS)


def _few_rows(folder):
    np.save(folder / "a.npy", ROWS[:2])
    return folder / "a.npy"


def _pickled(folder):
    np.save(folder / "a.npy", np.array([{"a": 1}] * 3), allow_pickle=True)
    return folder / "a.npy"


def _zero(folder):
    np.save(folder / "a.npy", ROWS * np.array([[1], [0], [1]]))
    return folder / "a.npy"


def _text(folder):
    (folder / "a.safetensors").write_text("no tensors at all")
    return folder / "a.safetensors"


def _no_column(folder):
    pq.write_table(pa.table({"class": CLASSES, "text": CLASSES}), folder / "a.parquet")
    return folder / "a.parquet"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_few_rows, r"found an array \(2, 4\), allowed \(3, E\)"),
        (_pickled, r"cannot be read: .*allow_pickle=False"),
        (_zero, r"zero or not finite, of wren"),
        (_text, r"a\.safetensors cannot be read"),
        (_no_column, r"found the columns class, text, allowed class and embedding"),
        (lambda f: as_parquet(f, ["Épervier", "wren", "wrenn"]), r"no embedding for 1 .*robin"),
        (lambda f: as_parquet(f, ["Épervier", "wren", "wrenn"]), r"not among the 3 .*wrenn"),
        (lambda f: as_parquet(f, ["Épervier", "wren", "wren"]), r"several embeddings .*: wren"),
    ],
)
def test_wrong_files_are_refused(tmp_path, write, message):
    with pytest.raises(UserError, match=message):
        read_class_embeddings(write(tmp_path), CLASSES)
