"""Which metrics an epoch and the end of a training have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.search_config import SearchConfig
from gsfl_tune.training import Predictions
from gsfl_tune.training.scoring import Scoring

CLASSES = ["ant", "bee", "cat"]
CHEAP = {
    *("accuracy", "balanced_accuracy", "top5", "nll", "ece", "top3", "macro_f1"),
    *("worst_recall", "auto_coverage", "auto_accuracy"),
}


def scoring(**search: object) -> Scoring:
    return Scoring(SearchConfig.model_validate(search), lambda: CLASSES)


def predictions(labels: list[int]) -> Predictions:
    logits = np.random.default_rng(0).normal(size=(len(labels), 3))
    return Predictions(logits, np.array(labels), ["image"] * len(labels))


def test_an_epoch_has_what_is_cheap_and_what_the_search_goes_by() -> None:
    seen = predictions([0, 1, 2, 1])
    assert scoring().of_epoch(seen).keys() == CHEAP
    asked = scoring(metric="validation/auroc").of_epoch(seen)
    assert asked.keys() == CHEAP | {"auroc"}
    assert asked["auroc"] == scoring().of("validation", seen)["auroc"]


def test_the_end_has_everything_and_costs(tmp_path: Path) -> None:
    file = tmp_path / "costs.csv"
    file.write_text("true,ant,bee,cat\nant,0,1,1\nbee,1,0,1\ncat,1,1,0\n")
    seen = predictions([0, 1, 2, 1])
    found = scoring(cost_matrix=str(file))
    validated = found.of("validation", seen)
    assert validated.keys() == CHEAP | {"auroc", "average_precision", "expected_cost"}
    # Every error costs 1.
    assert validated["expected_cost"] == pytest.approx(1 - validated["accuracy"])
    assert found.of_epoch(seen)["expected_cost"] == validated["expected_cost"]
    tested = found.of("test", seen)
    assert tested.keys() == validated.keys() - {"auto_coverage", "auto_accuracy"}


def test_a_search_by_an_area_needs_images_of_two_classes() -> None:
    with pytest.raises(UserError, match="found validation images of one class, allowed of two"):
        scoring(metric="validation/auroc").of_epoch(predictions([1, 1]))
