from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.replay.schedulers import NONE, SchedulerName
from benchmarks.replay.simulate import Outcome
from benchmarks.replay.spaces import EPOCHS
from benchmarks.simulation.cluster import HOUR, Cluster, Driver, Saving, simulate
from benchmarks.simulation.ledger import Ledger
from benchmarks.simulation.sources import RandomSource

ASHA = SchedulerName("asha", 3, 3)
CALM = {"process": 0.0, "trial": 0.0}


def outcomes(trials: int, seed: int = 0) -> list[Outcome]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(trials):
        truth = float(rng.random())
        curve = truth * np.linspace(0.5, 1, EPOCHS)
        found.append(Outcome(curve, truth, (0.5 + rng.random()) / EPOCHS))
    return found


def run(
    cluster: Cluster,
    *,
    saving: Saving | None = None,
    driver: Driver | None = None,
    scheduler: SchedulerName = ASHA,
    trials: int = 60,
    epoch_seconds: float = 60.0,
    known: Sequence[Outcome] | None = None,
) -> Ledger:
    source = RandomSource(known or outcomes(trials))
    return simulate(
        cluster,
        saving or Saving(),
        driver or Driver(),
        source,
        scheduler,
        trials=trials,
        epoch_seconds=epoch_seconds,
        seed=0,
    )


def booked(ledger: Ledger) -> float:
    return ledger.training + ledger.saving + ledger.waiting + ledger.starting


def test_one_worker_that_nothing_disturbs_trains_all_the_time():
    ledger = run(Cluster(1, **CALM))
    assert ledger.efficiency == pytest.approx(1)
    assert ledger.duration == pytest.approx(ledger.training)
    assert ledger.lost == ledger.deaths == ledger.failed == 0


def test_whatever_dies_every_epoch_is_trained_for_good_once():
    calm = run(Cluster(1), scheduler=NONE, trials=200)
    for policy, cost in (("none", 0.0), ("rungs", 5.0), ("product", 5.0)):
        dying = Cluster(16, failures=1.0, max_failures=1000)
        saving = Saving(policy, cost)  # type: ignore[arg-type]
        ledger = run(dying, saving=saving, scheduler=NONE, trials=200)
        assert ledger.deaths > 2
        assert ledger.lost > 0
        assert ledger.training - ledger.lost == pytest.approx(calm.training)
        assert len(ledger.ends) == 200
        assert booked(ledger) <= ledger.paid + 1e-6


def test_a_worker_that_is_never_idle_has_all_its_time_booked():
    cluster = Cluster(1, failures=2.0, detection=0.0, replacement=0.0, max_failures=1000)
    ledger = run(cluster, saving=Saving("product", 3.0), driver=Driver(0.5, 1.0, 0.0))
    assert ledger.deaths > 3
    assert booked(ledger) == pytest.approx(ledger.paid)
    # Nobody waits for the answer to the last result.
    assert ledger.driver == pytest.approx(ledger.waiting + 0.5)


def test_checkpoints_cost_time_and_save_more_the_more_often_nodes_die():
    lost = {}
    for policy in ("none", "rungs", "product"):
        for rate in (0.05, 1.0):
            cluster = Cluster(8, failures=rate, max_failures=1000)
            ledger = run(cluster, saving=Saving(policy), scheduler=NONE, trials=200)  # type: ignore[arg-type]
            lost[policy, rate] = ledger.lost / ledger.paid
    for rate in (0.05, 1.0):
        assert lost["product", rate] <= lost["rungs", rate] <= lost["none", rate]
    assert lost["none", 1.0] > 3 * lost["none", 0.05]
    # An epoch of a minute is all that the product can lose, and half of it on average.
    one = run(Cluster(8, failures=1.0, max_failures=1000), scheduler=NONE, trials=200)
    assert one.lost <= 8 * one.deaths * 90


def test_a_trial_that_dies_too_often_is_given_up():
    cluster = Cluster(1, failures=8.0, max_failures=0)
    ledger = run(cluster, saving=Saving("none"), scheduler=NONE, trials=30)
    assert ledger.failed > 5
    assert ledger.failed + len(ledger.ends) == 30


def test_a_driver_that_is_asked_too_much_sets_the_pace():
    driver = Driver(result=0.01, trial=0.02)
    busy = run(Cluster(64, **CALM), driver=driver, epoch_seconds=0.1, trials=500)
    assert busy.duration >= busy.results * 0.01 + 500 * 0.02
    assert busy.driver / busy.duration > 0.8
    calm = run(Cluster(1), driver=driver, epoch_seconds=0.1, trials=500)
    assert calm.driver / calm.duration < 0.1
    # One proposal at a time: no trial begins sooner than the one before plus a proposal.
    proposing = run(Cluster(64), driver=Driver(proposal=0.05), epoch_seconds=0.1, trials=500)
    assert proposing.duration > 499 * 0.05


def test_workers_pay_for_their_time_and_not_for_nodes_that_are_gone():
    ledger = run(Cluster(8, failures=2.0, replacement=HOUR, max_failures=1000), trials=100)
    assert ledger.deaths > 0
    assert ledger.paid < 8 * ledger.duration
    best = ledger.incumbent(np.array([0.0, ledger.paid]))
    assert np.isnan(best[0])
    truth = max((value, truth) for _, _, value, truth in ledger.ends)[1]
    assert best[1] == truth
    assert ledger.time_to(truth) <= ledger.duration
    assert ledger.time_to(2.0) == float("inf")
