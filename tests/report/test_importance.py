"""Importances find what a result was made of, and say when they cannot."""

from __future__ import annotations

import numpy as np

from gsfl_tune.report.importance import importances
from gsfl_tune.report.trials import TrialRecord


def trials(count, value, **more):
    random = np.random.default_rng(1)
    made = []
    for number in range(count):
        params = {
            "rate": 10 ** random.uniform(-4, -2),
            "method": str(random.choice(["a", "b", "c"])),
            "idle": random.uniform(),
            "fixed": 3,
        }
        if params["method"] == "a":
            params["only_a"] = int(random.integers(1, 9))
        found = float(value(params, random))
        made.append(
            TrialRecord("search", number, "COMPLETE", found, params=params, rungs={0: found / 2})
        )
    return made


def test_what_the_result_depends_on_comes_first():
    def value(params, random):
        height = -((np.log10(params["rate"]) + 3) ** 2)
        return height + {"a": 0.5, "b": 0.0, "c": 0.0}[params["method"]] + random.normal(0, 0.02)

    found = importances(trials(120, value))
    assert found is not None
    names = [name for name, _ in found.shares]
    shares = dict(found.shares)
    # `only_a` is there exactly where the method is a: either tells a tree the same.
    assert names[0] == "rate"
    assert set(names[1:3]) == {"method", "only_a"}
    assert shares["idle"] < 0.05
    assert "fixed" not in shares
    assert found.explained > 0.6
    assert found.verdict == "reliable"


def test_noise_is_called_noise():
    found = importances(trials(60, lambda params, random: random.normal()))
    assert found is not None
    assert found.explained < 0.15
    assert found.verdict.startswith("not reliable")


def test_they_are_the_same_every_time():
    made = trials(40, lambda params, random: params["idle"] + random.normal(0, 0.1))
    assert importances(made) == importances(made)
    assert importances(made, rung=0) != importances(made, rung=1)


def test_too_few_or_too_alike_is_nothing():
    assert importances(trials(9, lambda params, random: params["idle"])) is None
    assert importances(trials(30, lambda params, random: 1.0)) is None
    assert importances([]) is None
    bare = [TrialRecord("search", n, "COMPLETE", float(n)) for n in range(20)]
    assert importances(bare) is None
