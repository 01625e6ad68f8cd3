"""What a resume knows of the prices that earlier drivers have measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.run import EpochLog, RunDirectory, write_text
from gsfl_tune.run.layout import EPOCHS_FILE
from gsfl_tune.run.manifest import Manifest
from gsfl_tune.search import TrialCosts, begin_or_go_on, open_study, plain_space, recall_prices
from gsfl_tune.search.study.study import Study
from tests.search.experiments import experiment

OVERRIDES = ("model.head=gsfl", "training.finetune.epochs=2", "data.views=2")


def _costs() -> TrialCosts:
    return TrialCosts(train=600, validation=100, classes=21)


def _log(run: RunDirectory, study: Study, tried: Experiment, stages: dict[str, float]) -> None:
    """Begins a trial that costs what the defaults do and logs an epoch of each stage, in seconds.

    No two are alike: a configuration is not tried twice.
    """
    rate = {"training.head.learning_rate": 1e-3 * (1 + sum(stages.values()) / 1000)}
    study.enqueue({**tried.default_params(), **rate}, "enqueue[0]")
    number = study.ask().number
    log = EpochLog(run.trial(study.name, number) / EPOCHS_FILE)
    for epoch, (stage, seconds) in enumerate(stages.items(), start=1):
        # What a first epoch does once is no property of an epoch.
        log.append({"epoch": epoch, "stage": stage, "seconds": seconds + 30, "cache_seconds": 30.0})


def test_a_resume_prices_trainings_as_they_were_and_not_as_they_were_planned(
    run: RunDirectory,
) -> None:
    tried = experiment(*OVERRIDES)
    config = tried.defaults()
    study = open_study(tried, run)
    for seconds in (7.0, 8.0, 9.0):
        _log(run, study, tried, {"head": seconds, "finetune": 10 * seconds})
    study.close()
    costs = _costs()
    recall_prices(tried, run, costs)
    costs.assume(config, 50.0)
    head, finetune = costs.work(config)
    assert costs.costs.epoch(head) == pytest.approx(8.0)
    assert costs.costs.epoch(finetune) == pytest.approx(80.0)
    # What is measured now counts more, as this may be another machine.
    costs.observe(config, {"measured": {"head": [2, 3.0]}, "place_machine": "x"})
    assert costs.costs.epoch(head) == pytest.approx(1.5)
    assert costs.costs.epoch(finetune) == pytest.approx(80.0)


def test_a_search_without_a_time_budget_is_resumed_with_prices_too(run: RunDirectory) -> None:
    tried = experiment(*OVERRIDES)
    study = open_study(tried, run)
    _log(run, study, tried, {"head": 7.0, "finetune": 70.0})
    study.close()
    write_text(run.experiment_file, tried.to_yaml())
    Manifest(run).begin(tried, data="d", environment={}, seconds=1.0)
    begun = begin_or_go_on(tried, run, "d", resume=True)
    assert begun.plan is None
    costs = _costs()
    begun.recall_prices(run, costs)
    head, _ = costs.work(tried.defaults())
    assert costs.costs.epoch(head) == pytest.approx(7.0)
    # A run that is begun anew has no prices.
    costs = _costs()
    replace(begun, anew=True).recall_prices(run, costs)
    assert not costs.costs.known(head)


def test_what_no_trial_has_shown_costs_what_was_planned(run: RunDirectory) -> None:
    tried = experiment(*OVERRIDES)
    config = tried.defaults()
    planned = _costs()
    planned.assume(config, 100.0)
    study = open_study(tried, run)
    _log(run, study, tried, {"head": 5.0})
    study.close()
    costs = _costs()
    recall_prices(tried, run, costs)
    costs.assume(config, 100.0)
    head, finetune = costs.work(config)
    assert costs.costs.epoch(head) == pytest.approx(5.0)
    assert costs.costs.epoch(finetune) == pytest.approx(planned.costs.epoch(finetune))


def test_trials_of_the_control_count_and_logs_that_are_gone_do_not(run: RunDirectory) -> None:
    tried = experiment(*OVERRIDES)
    study = open_study(tried, run)
    study.ask()
    study.close()
    control = plain_space(tried)
    study = open_study(control, run, "control")
    _log(run, study, control, {"head": 4.0})
    study.close()
    costs = _costs()
    recall_prices(tried, run, costs)
    assert costs.costs.epoch(costs.work(control.defaults())[0]) == pytest.approx(4.0)


def test_a_run_without_trials_changes_no_price(run: RunDirectory) -> None:
    tried, costs = experiment(*OVERRIDES), _costs()
    before = costs.seconds(tried.defaults())
    recall_prices(tried, run, costs)
    assert costs.seconds(tried.defaults()) == before


def test_trials_of_a_space_that_changes_are_priced_as_what_they_were(run: RunDirectory) -> None:
    """A backbone that the new space leaves out says nothing of the one that it keeps."""
    old = experiment(*OVERRIDES, "model.backbone={choice: [resnet10t, resnet18]}")
    new = experiment(*OVERRIDES, "model.backbone=resnet18")
    Manifest(run).begin(old, data="aaaa", environment={}, seconds=1.0)
    write_text(run.experiment_file, old.to_yaml())
    study = open_study(old, run)
    assert old.default_params()["model.backbone"] == "resnet10t"
    _log(run, study, old, {"head": 7.0, "finetune": 70.0})
    study.close()
    begun = begin_or_go_on(new, run, "aaaa", resume=True, changing=True)
    found, same = _costs(), _costs()
    begun.recall_prices(run, found)
    recall_prices(old, run, same)
    assert found.seconds(new.defaults()) == same.seconds(new.defaults())
    # Those of the old backbone are known, if it comes back.
    _, finetune = found.work(old.defaults())
    assert found.costs.epoch(finetune) == pytest.approx(70.0)
    _, finetune = found.work(new.defaults())
    assert found.costs.epoch(finetune) != pytest.approx(70.0)
