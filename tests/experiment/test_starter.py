"""The first experiment file for somebody's images, where classes are unequal."""

from __future__ import annotations

import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.starter import Facts, name_of, starter_text


def starter(ratio: float, *, quick: bool) -> Experiment:
    facts = Facts(
        data={"source": "typefaces"},
        parts={"train": 400, "test": 100},
        class_count=8,
        short_side=96,
        class_ratio=ratio,
        backbones=["test_efficientnet"],
        weights="none",
    )
    return Experiment.parse(starter_text("birds", facts, quick=quick))


@pytest.mark.parametrize("quick", [False, True])
def test_rare_classes_are_shown_more_often_where_the_search_finds_that_better(quick):
    key = "training.balanced_sampling"
    assert key in {each.path for each in starter(5.0, quick=quick).space.parameters}
    assert starter(5.0, quick=quick).defaults().training.balanced_sampling == 0.5
    assert key not in {each.path for each in starter(1.5, quick=quick).space.parameters}
    assert starter(5.0, quick=quick).warnings == []


def test_a_pattern_is_named_after_its_folder(tmp_path):
    assert name_of(str(tmp_path / "birds/[tv]*.parquet")) == "birds"
    assert name_of("s3://bucket/photos/train-*.parquet") == "photos"
    (tmp_path / "birds [2024]").mkdir()
    assert name_of(str(tmp_path / "birds [2024]")) == "birds--2024-"
