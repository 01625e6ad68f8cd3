from __future__ import annotations

import heapq
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.replay.runs import finished, go_on, gp_runs, runs, screening, simulate_all
from benchmarks.replay.schedulers import NONE, Median, SchedulerName
from benchmarks.replay.simulate import Outcome, Setting, Trace, simulate
from benchmarks.replay.spaces import DATASETS, EPOCHS, experiment
from benchmarks.replay.surrogate import Surrogate
from benchmarks.replay.tables import TABLES, Curves, Encoder

ASHA = SchedulerName("asha", 3, 3)


class Bowl:
    """The nearer to a point, the better, from the first epoch on; wide layers take longer."""

    def __init__(self) -> None:
        found = experiment("typefaces")
        self.space = found.space
        self.defaults = found.default_params()
        self.encode = Encoder(self.space)
        self.seen: dict[int, Outcome] = {}

    def trial(self, params: dict[str, Any], draw: tuple[int, int]) -> Outcome:
        x = self.encode(params)
        truth = float(np.exp(-((x - 0.4) ** 2).sum()))
        curve = truth * np.linspace(0.5, 1, EPOCHS)
        self.seen[draw[1]] = Outcome(curve, truth, (0.5 + x[1]) / EPOCHS)
        return self.seen[draw[1]]


def run(setting: Setting, seed: int = 0) -> tuple[Trace, Bowl]:
    bowl = Bowl()
    return simulate(bowl, setting, seed), bowl


def test_one_worker_takes_the_sum_of_all_epochs():
    trace, bowl = run(Setting("random", ASHA, workers=1, trials=25))
    spent = sum(n * bowl.seen[number].epoch_time for number, n in enumerate(trace.epochs))
    assert trace.duration == pytest.approx(spent)
    assert min(trace.epochs) == 3 < max(trace.epochs) == EPOCHS


def test_without_a_scheduler_workers_take_trials_as_they_become_free():
    trace, bowl = run(Setting("random", NONE, workers=4, trials=30))
    free = [0.0] * 4
    ends = []
    for number in range(30):
        ends.append(heapq.heappop(free) + EPOCHS * bowl.seen[number].epoch_time)
        heapq.heappush(free, ends[-1])
    assert trace.duration == pytest.approx(max(ends))
    assert [end for end, *_ in trace.ends] == pytest.approx(sorted(ends))
    assert trace.epochs == [EPOCHS] * 30


@pytest.mark.parametrize("told", ["pruned", "complete", "nothing"])
def test_a_seed_makes_a_search(told):
    setting = Setting("mtpe", ASHA, workers=3, trials=20, told=told)
    first, second, other = run(setting)[0], run(setting)[0], run(setting, seed=1)[0]
    assert first == second
    assert first != other


@pytest.mark.parametrize("change", [{"ahead": True}, {"history": 8}])
def test_a_sampler_that_knows_less_proposes_something_else(change):
    setting = Setting("mtpe", NONE, workers=2, trials=24)
    (usual, bowl), (changed, bowl_changed) = run(setting), run(replace(setting, **change))
    assert len(changed.ends) == len(usual.ends) == 24
    truths = [[b.seen[n].truth for n in range(24)] for b in (bowl, bowl_changed)]
    assert truths[0][:5] == truths[1][:5]
    assert truths[0] != truths[1]


def test_halving_keeps_about_a_third_and_the_best_of_them():
    trace, bowl = run(Setting("random", ASHA, workers=1, trials=90, protected=False))
    at_rungs = [sum(epochs >= rung for epochs in trace.epochs) for rung in (3, 9, 27)]
    # Asynchronous: the first trials go on before there is anybody to lose to.
    assert at_rungs[0] == 90
    assert 20 <= at_rungs[1] <= 50
    assert 5 <= at_rungs[2] <= at_rungs[1] / 1.5
    best = max(bowl.seen.values(), key=lambda outcome: outcome.truth)
    assert trace.incumbent(np.array([np.inf]))[0] == best.truth


def test_the_defaults_are_tried_first_and_never_stopped():
    trace, bowl = run(Setting("random", SchedulerName("asha", 1, 2), trials=40))
    assert bowl.seen[0].truth == bowl.trial(bowl.defaults, (0, 0)).truth
    assert trace.epochs[0] == EPOCHS


def test_the_median_rule_stops_the_lower_half():
    rule = Median(grace=3, fewest=3)
    stopped = []
    for number, level in enumerate([0.5, 0.6, 0.7, 0.4, 0.65]):
        for k in range(EPOCHS):
            if rule.record(number, k, level):
                stopped.append((number, k + 1))
                break
    assert stopped == [(3, 3)]


def test_the_incumbent_is_the_best_observed_and_counts_its_truth():
    trace = Trace(ends=[(1.0, 0.5, 0.55), (2.0, 0.7, 0.6), (3.0, 0.6, 0.9)])
    found = trace.incumbent(np.array([0.5, 1.0, 2.5, 9.0]))
    assert np.isnan(found[0])
    assert found[1:].tolist() == [0.55, 0.6, 0.6]


@pytest.fixture(scope="module")
def curves() -> Curves:
    found = Curves.load("typefaces")
    chosen = np.flatnonzero(found.index < 60)
    return Curves(
        found.index[chosen],
        found.seed[chosen],
        [found.params[row] for row in chosen],
        found.accuracy[chosen],
        found.seconds[chosen],
    )


def test_the_surrogate_gives_back_what_was_recorded(curves):
    surrogate = Surrogate("typefaces", curves)
    once = (curves.seed == 0) & (curves.index >= 0)
    x = np.array([surrogate.encode(p) for p, keep in zip(curves.params, once, strict=True) if keep])
    recorded, found = curves.accuracy[once][:, -1], surrogate.truth(x)[:, -1]
    assert np.corrcoef(recorded, found)[0, 1] > 0.95
    best, median = surrogate.best(random=500, rounds=5)
    assert median < found.max() <= best + 1e-9
    params = curves.params[int(np.flatnonzero(once)[0])]
    seen = [surrogate.trial(params, (0, number)) for number in range(40)]
    assert len({outcome.truth for outcome in seen}) == 1
    observed = np.array([outcome.curve[-1] for outcome in seen])
    assert 0 < observed.std() < 0.1
    assert np.allclose(observed * 252, np.round(observed * 252))


@pytest.mark.parametrize("name", DATASETS)
def test_the_tables_hold_what_the_issue_asks_for(name):
    found = Curves.load(name)
    assert len(set(found.index[found.index >= 0].tolist())) >= 300
    assert found.accuracy.shape == found.seconds.shape == (len(found.index), EPOCHS)
    assert np.isfinite(found.accuracy).all()
    assert sum(path.stat().st_size for path in TABLES.glob("*.parquet")) < 5e6
    known = {parameter.name for parameter in experiment(name).space.parameters}
    assert len(known) == 12
    assert all(known.issuperset(params) for params in found.params)


def test_published_results_are_gone_on_with(tmp_path):
    """Every setting has five seeds there; nothing is simulated again, nothing noted twice."""
    log = tmp_path / "work" / "runs.jsonl"
    go_on(log, TABLES.parent / "results.parquet")
    wanted = [*runs(screening(), range(5)), *gp_runs(range(5))]
    rows = simulate_all(wanted, {}, log, processes=1)
    assert {(row["sampler"], row["workers"]) for row in rows} >= {("gp", 64), ("ntpe", 1)}
    assert all(row["final"] >= -1e-6 for row in rows)
    known = finished(log)
    go_on(log, TABLES.parent / "results.parquet")
    assert finished(log) == known
