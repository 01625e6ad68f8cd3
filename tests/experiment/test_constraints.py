"""Constraints: what they mean, and what is refused."""

from __future__ import annotations

import pytest

from gsfl_tune.experiment import ExperimentError
from gsfl_tune.experiment.constraints import parse_constraint
from tests.search.experiments import YAML, experiment


@pytest.mark.parametrize(
    ("text", "holds", "fails"),
    [
        ("latency_ms < 20", [19.999, 0], [20, 20.001]),
        ("size_mb<=30", [30, 1], [30.001]),
        ("macs < 5e8", [4e8], [5e8, 6e8]),
        ("validation/worst_recall > 0.5", [0.51], [0.5, 0.2]),
        ("validation/nll >= -1", [-1, 0], [-1.5]),
        ("validation/ece <= 0", [0], [0.01]),
    ],
)
def test_a_value_holds_or_breaks_it(text: str, holds: list[float], fails: list[float]) -> None:
    found = parse_constraint(text)
    assert all(found.violation(value) <= 0 for value in holds)
    assert all(found.violation(value) > 0 for value in fails)


def test_violations_are_relative_so_that_they_can_be_added() -> None:
    assert parse_constraint("latency_ms < 20").violation(30) == pytest.approx(0.5)
    assert parse_constraint("macs < 4e8").violation(6e8) == pytest.approx(0.5)
    assert parse_constraint("validation/auroc > 0.8").violation(0.4) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("latency < 20", "found 'latency' in 'latency < 20', allowed latency_ms, size_mb, macs,"),
        ("latency_ms 20", "found 'latency_ms 20', allowed NAME < NUMBER"),
        ("latency_ms < 20ms", "found '20ms' in 'latency_ms < 20ms', allowed a number"),
        ("latency_ms < inf", "found 'inf' in"),
        ("10 < latency_ms < 20", "found '10 < latency_ms < 20', allowed NAME < NUMBER"),
    ],
)
def test_what_is_no_constraint_is_told_with_its_line(text: str, complaint: str) -> None:
    lines = YAML.replace("search:\n", f"search:\n  constraints:\n  - size_mb < 9\n  - {text}\n")
    with pytest.raises(ExperimentError) as caught:
        experiment(text=lines)
    where = lines.splitlines().index(f"  - {text}") + 1
    assert f":{where}: search.constraints: {complaint}" in str(caught.value)


def test_an_experiment_keeps_them() -> None:
    made = experiment("search.constraints=[latency_ms < 20, validation/auroc > 0.9]")
    assert made.defaults().search.constraints == ["latency_ms < 20", "validation/auroc > 0.9"]
    # An epoch then computes what is else computed at the end alone.
    assert "validation/auroc" in made.defaults().search.named
