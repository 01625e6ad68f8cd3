"""Real photographs and characters, in the folder that GSFL_TUNE_REAL_DATA names."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from gsfl_tune.data import prepare
from tests.data.conftest import configure

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        "GSFL_TUNE_REAL_DATA" not in os.environ, reason="GSFL_TUNE_REAL_DATA is not set"
    ),
]


@pytest.fixture
def real_data() -> Path:
    return Path(os.environ["GSFL_TUNE_REAL_DATA"])


def test_clothing(real_data, photographs):
    dataset = prepare(configure("parquet", real_data / "clothing"), cache_dir=photographs)
    assert dataset.summary()["counts"] == {"train": 3068, "validation": 341, "test": 372}
    assert dataset.class_count == 10
    assert dataset.classes[0] == "dress"
    assert not dataset.broken
    assert dataset.given_validation
    assert dataset.pool.sizes.min() == 240
    # Decoded photographs are neither black nor noise.
    squares = dataset.pool.gather(np.arange(0, len(dataset.pool), 50)).astype(float)
    assert 60 < squares.mean() < 200
    assert squares.std(axis=(1, 2, 3)).min() > 10


@pytest.mark.slow
def test_omniglot(real_data, cache):
    dataset = prepare(configure("parquet", real_data / "omniglot"), cache_dir=cache)
    counts = dataset.summary()["counts"]
    assert counts["train"] + counts["validation"] == 3388
    assert counts["test"] == 1452
    assert not dataset.given_validation
    with (real_data / "omniglot" / "groups.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == set(dataset.classes)
    validation = dataset.pool.labels[dataset.validation_index]
    assert np.bincount(validation, minlength=242).min() >= 1
