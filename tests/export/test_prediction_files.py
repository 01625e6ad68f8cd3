"""Tables of predictions on a disk that is full."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export.prediction_files import CsvFile, ParquetFile
from gsfl_tune.export.predictor import Prediction


@pytest.fixture
def full() -> Iterator[None]:
    """No file may be larger than some bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", [CsvFile, ParquetFile])
def test_a_full_disk_is_told_and_leaves_nothing(full, tmp_path, kind):
    def write():
        with kind(tmp_path / "table", 1, threshold=False) as table:
            for number in range(5000):
                table.add(Prediction(f"{number * 7919}.jpg", ["ant"], [1 / (number + 1)]))

    with pytest.raises(UserError, match="table: cannot be written"):
        write()
    assert list(tmp_path.iterdir()) == []
