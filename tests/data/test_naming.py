"""What a data set is called where people see it."""

from __future__ import annotations

import pytest

from gsfl_tune.data.naming import name_of
from gsfl_tune.experiment.data_config import DataConfig


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("{}/birds", "birds"),
        ("{}/birds [2024]", "birds [2024]"),  # is there
        ("{}/birds/[tv]*.parquet", "birds"),
        (["{}/birds/train-*.parquet", "{}/birds/test.parquet"], "birds"),
        ("https://host/birds/train.parquet?download=1", "train.parquet?download=1"),
        (None, "typefaces"),
    ],
)
def test_a_pattern_is_named_after_its_folder(tmp_path, path, name):
    (tmp_path / "birds [2024]").mkdir()
    paths = [each.format(tmp_path) for each in (path if isinstance(path, list) else [path or ""])]
    given = None if path is None else paths if isinstance(path, list) else paths[0]
    source = "typefaces" if given is None else "parquet"
    assert name_of(DataConfig.model_validate({"source": source, "path": given})) == name
