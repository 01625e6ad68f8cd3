"""Rungs: who was stopped where, and whether an early order is the late one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from gsfl_tune.report.rungs import (
    pretraining_rungs,
    rank_correlations,
    rung_epochs,
    rungs,
    values_by_rung,
)
from gsfl_tune.report.trials import TrialRecord


def trial(number, *values, state="COMPLETE", ended=None):
    return TrialRecord("search", number, state, rungs=dict(enumerate(values)), ended=ended)


def test_counts_and_labels():
    trials = [
        trial(0, 0.1, 0.2, 0.3),
        trial(1, 0.3, state="PRUNED"),
        trial(2, 0.2, state="PRUNED"),
        trial(3, 0.2, 0.25, state="PRUNED", ended="time budget"),
        trial(4, 0.05, 0.1, state="FAIL"),
        trial(5, state="RUNNING"),
    ]
    stretches = [
        {"study": "search", "rung": -1, "epoch": 0},
        {"study": "search", "rung": 0, "epoch": 3},
        {"study": "search", "rung": 0, "epoch": 3},
        {"study": "search", "rung": 0, "epoch": 2},
        {"study": "control", "rung": 1, "epoch": 7},
        {"study": "search", "rung": 2, "epoch": 27},
    ]
    found = rungs(trials, rung_epochs(stretches), maximize=True)
    assert [(r.label, r.reached, r.stopped) for r in found] == [
        ("epoch 3", 5, 2),
        ("rung 2", 3, 0),  # one went on to its end, one was stopped by a limit, one failed
        ("epoch 27", 1, 0),
    ]
    assert found[0].best == 0.3
    assert found[0].median == 0.2
    assert rungs(trials, {}, maximize=False)[0].best == 0.05
    assert rungs([], {}, maximize=True) == []


def test_epochs_of_a_space_that_was_changed_are_no_labels():
    stretches = [
        {"study": "search", "rung": 0, "epoch": 3, "begin": 10.0},
        {"study": "search", "rung": 0, "epoch": 3, "begin": 11.0},
        {"study": "search", "rung": 1, "epoch": 9, "begin": 12.0},
        {"study": "search", "rung": 0, "epoch": 2, "begin": 30.0},
    ]
    assert rung_epochs(stretches) == {0: 3, 1: 9}
    assert rung_epochs(stretches, since=20.0) == {0: 2}


def test_rank_correlations_are_those_of_scipy_over_the_trials_that_reached_both():
    random = np.random.default_rng(0)
    first = random.normal(size=40)
    second = first + random.normal(size=40)
    pairs = zip(first, second, strict=True)
    trials = [trial(n, *([a, b] if n % 2 else [a])) for n, (a, b) in enumerate(pairs)]
    found = rank_correlations(values_by_rung(trials))
    assert found[0][1].trials == 20
    assert found[0][1].value == pytest.approx(spearmanr(first[1::2], second[1::2]).statistic)
    assert found[0][0].value == pytest.approx(1)
    assert found[1][0] == found[0][1]


def test_too_few_trials_have_no_correlation():
    found = rank_correlations(values_by_rung([trial(n, n, n) for n in range(4)]))
    assert found[0][1].value is None
    assert found[0][1].trials == 4


def test_rungs_within_pretrainings_count_trials_that_end_there():
    trials = [
        TrialRecord("search", 0, "COMPLETE", rungs={0: 0.9}, pretraining={25: 0.5, 50: 0.6}),
        TrialRecord("search", 1, "PRUNED", pretraining={25: 0.3}),
        TrialRecord("search", 2, "PRUNED", rungs={0: 0.2}, pretraining={25: 0.4, 50: 0.4}),
        TrialRecord("search", 3, "PRUNED", pretraining={25: 0.45}, ended="time budget"),
    ]
    found = pretraining_rungs(trials)
    assert [(r.index, r.reached, r.stopped, r.best) for r in found] == [
        (25, 4, 1, 0.5),
        (50, 2, 0, 0.6),
    ]
    assert found[0].median == pytest.approx(0.425)
    assert pretraining_rungs([trial(0, 0.1)]) == []
