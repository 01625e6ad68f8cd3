"""Findings about parameters, with the forest that the report draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gsfl_tune.evidence import Explained, Searched
from gsfl_tune.report.importance import importances
from gsfl_tune.report.trials import TrialRecord

from .test_findings import codes, world

Value = Callable[[dict[str, Any], np.random.Generator], float]


def searched(count: int, value: Value) -> Searched:
    """A search whose trials came to these values."""
    random = np.random.default_rng(1)
    trials = []
    for number in range(count):
        params = {
            "training.head.learning_rate": random.uniform(-4, -2),
            "model.dropout": random.uniform(0, 0.7),
            "loss.shared_center": random.uniform(-5, 0),
            "model.groups.count": int(random.integers(2, 20)),
        }
        found = float(value(params, random))
        trials.append(TrialRecord("search", number, "COMPLETE", found, params=params))
    forest = importances(trials)
    assert forest is not None
    return Searched(explained=Explained(forest.trials, forest.explained, forest.shares))


def rate(params: dict[str, Any]) -> float:
    return -((params["training.head.learning_rate"] + 3) ** 2)


def test_results_that_the_parameters_do_not_explain():
    noise = searched(40, lambda params, random: random.normal())
    assert codes(world(), searched=noise) == ["parameters_explain_nothing"]
    # Of few trials a forest explains little even where there is something to explain.
    assert codes(world(), searched=searched(19, lambda params, random: random.normal())) == []


def test_all_importance_in_one_learning_rate():
    alone = searched(120, lambda params, random: rate(params) + random.normal(0, 0.02))
    found = codes(world(), searched=alone)
    assert "one_learning_rate" in found
    # GSFL's terms do nothing here either, and that is told too.
    assert set(found) == {"one_learning_rate", "no_slope"}


def test_dropout_alone_is_no_learning_rate():
    alone = searched(120, lambda params, random: -((params["model.dropout"] - 0.3) ** 2))
    assert "one_learning_rate" not in codes(world(), searched=alone)


def test_terms_that_matter_have_a_slope():
    def value(params: dict[str, Any], random: np.random.Generator) -> float:
        return rate(params) + 0.5 * params["loss.shared_center"] + random.normal(0, 0.02)

    assert codes(world(), searched=searched(120, value)) == []


def test_without_searched_terms_nothing_is_said_of_them():
    shares = [("model.dropout", 0.4), ("training.head.learning_rate", 0.3)]
    assert codes(world(), searched=Searched(explained=Explained(50, 0.8, shares))) == []
    assert codes(world(), searched=Searched(explained=None)) == []
