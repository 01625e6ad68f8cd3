"""What Ray is told at a rung, and what it tells of a failure."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Trial

from gsfl_tune.experiment.constraints import parse_constraint
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Asha, open_study
from gsfl_tune.search.ray_tune.scheduler import AshaScheduler, create_asha
from gsfl_tune.search.ray_tune.worker_losses import Failure
from gsfl_tune.search.schedulers.pareto_asha import ParetoAsha
from gsfl_tune.search.study.goals import Goals
from tests.search.experiments import experiment
from tests.search.ray_tune.test_searcher import Setup

METRIC = "validation/nll"
DIED = """Failure # 1 (occurred at 2026-11-22_04-00-00)
The actor died because its node has died. Node Id: 8a2f
"""
RAISED = """Failure # 2 (occurred at 2026-11-22_04-00-00)
ray::GsflTrainable.train() (pid=4711, ip=127.0.0.1, actor_id=c2d3)
RuntimeError: the GPU is on fire
"""


@pytest.fixture
def setup(run: RunDirectory) -> Setup:
    return Setup(run, budget=3)


def _trial(number: int, *, protected: bool = False) -> Trial:
    """A trial of Ray's, without a trainable."""
    config = {"number": number, "protected": protected}
    return Trial("stub", config=config, trial_id=f"ray-{number}", stub=True)


def _scheduler(setup: Setup, *, rungs: int = 2, stops: bool = True) -> AshaScheduler:
    asha = Asha(rungs, reduction=2, direction="minimize") if stops else None
    return AshaScheduler(asha, setup.searcher, Goals(METRIC))


def _rung(k: int, value: float) -> dict[str, Any]:
    return {"rung": k, METRIC: value}


def test_a_trial_worse_than_others_at_its_rung_stops(setup: Setup) -> None:
    scheduler = _scheduler(setup)
    answers = [
        scheduler.on_trial_result(None, _trial(number), _rung(0, value))
        for number, value in enumerate([1.0, 3.0, 0.5])
    ]
    assert answers == ["CONTINUE", "STOP", "CONTINUE"]


def test_a_protected_trial_goes_on_and_others_are_compared_with_it(setup: Setup) -> None:
    scheduler = _scheduler(setup)
    protected = [
        scheduler.on_trial_result(None, _trial(number, protected=True), _rung(0, value))
        for number, value in enumerate([1.0, 3.0])
    ]
    assert protected == ["CONTINUE", "CONTINUE"]
    assert scheduler.on_trial_result(None, _trial(2), _rung(0, 2.5)) == "STOP"


def test_without_halving_every_trial_goes_on(setup: Setup) -> None:
    scheduler = _scheduler(setup, stops=False)
    for number, value in enumerate([1.0, 3.0, 9.0]):
        assert scheduler.on_trial_result(None, _trial(number), _rung(0, value)) == "CONTINUE"


def test_a_result_without_a_rung_stops_nothing(setup: Setup) -> None:
    scheduler = _scheduler(setup)
    failed = {"trial_number": 0, "failed": "not finite", "done": True}
    assert scheduler.on_trial_result(None, _trial(0), failed) == "CONTINUE"
    scheduler.on_trial_complete(None, _trial(0), failed)


def test_the_end_of_a_trial_is_compared_with_too(run: RunDirectory, setup: Setup) -> None:
    asha = Asha(1, reduction=2, direction="minimize")
    scheduler = AshaScheduler(asha, setup.searcher, Goals(METRIC))
    assert asha.cutoff(0, 0) is None
    scheduler.on_trial_complete(None, _trial(0), _rung(0, 0.25))
    assert asha.cutoff(0, 0) == 0.25


def _failed(folder: Path, name: str | None) -> Trial:
    """A trial of Ray's whose failures are in a file of this name."""
    trial = _trial(0)
    trial.storage = StorageContext(str(folder), "fit", trial_dir_name="ray-0")
    trial.run_metadata.error_filename = name
    Path(trial.local_path).mkdir(parents=True, exist_ok=True)
    return trial


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DIED, Failure("node", "its node was lost")),
        (DIED + RAISED, Failure("error", "RuntimeError: the GPU is on fire")),
    ],
)
def test_the_searcher_learns_from_rays_file_why_a_trial_failed(
    ray_of_tests: None, setup: Setup, tmp_path: Path, text: str, expected: Failure
) -> None:
    trial = _failed(tmp_path, "error.txt")
    Path(trial.error_file).write_text(text)
    _scheduler(setup).on_trial_error(None, trial)
    assert setup.searcher.failures == {"ray-0": expected}


@pytest.mark.parametrize("name", [None, "missing.txt"])
def test_a_failure_without_a_file_is_the_death_of_a_process(
    ray_of_tests: None, setup: Setup, tmp_path: Path, name: str | None
) -> None:
    _scheduler(setup).on_trial_error(None, _failed(tmp_path, name))
    assert setup.searcher.failures["ray-0"].kind == "process"


def test_the_oldest_trial_that_waits_is_run_first(setup: Setup) -> None:
    scheduler = _scheduler(setup)
    running, *waiting = live = [_trial(number) for number in (1, 10, 9)]
    running.set_status(Trial.RUNNING)
    # All that it asks of Ray's controller.
    controller = SimpleNamespace(get_live_trials=lambda: live)
    assert scheduler.choose_trial_to_run(controller) is waiting[1]
    for trial in waiting:
        trial.set_status(Trial.RUNNING)
    assert scheduler.choose_trial_to_run(controller) is None


def _others(**others: float) -> dict[str, Any]:
    return {"others": json.dumps(others)}


def test_a_trial_that_cannot_keep_a_constraint_stops_and_others_are_not_compared_with_it(
    setup: Setup,
) -> None:
    goals = Goals(METRIC, constraints=(parse_constraint("size_mb < 10"),))
    scheduler = AshaScheduler(Asha(2, reduction=2, direction="minimize"), setup.searcher, goals)
    good = _rung(0, 0.1) | _others(size_mb=20)
    assert scheduler.on_trial_result(None, _trial(0), good) == "STOP"
    assert scheduler.on_trial_result(None, _trial(1, protected=True), good) == "CONTINUE"
    # Nothing that could win was here before.
    assert scheduler.on_trial_result(None, _trial(2), _rung(0, 9.0) | _others(size_mb=9)) == (
        "CONTINUE"
    )


def test_a_resumed_search_compares_all_objectives_with_those_of_the_journal(
    run: RunDirectory,
) -> None:
    made = experiment(
        "search.metric=validation/accuracy",
        "search.objectives=[validation/accuracy, size_mb]",
        "search.scheduler.by_objectives=true",
        "search.constraints=[size_mb < 100]",
    )
    study = open_study(made, run)
    for value, size in ((0.9, 90.0), (0.8, 80.0), (0.7, 95.0), (0.99, 200.0)):
        study.report(study.ask().number, 0, value, {"size_mb": size})
    study.close()
    study = open_study(made, run)
    asha = create_asha(study, made.defaults().search.scheduler, 3)
    assert isinstance(asha, ParetoAsha)
    assert asha.reduction == 3
    # Worse in both than all that keep the constraint; smaller than all; worse than the large one.
    assert asha.record(10, 0, study.goals.costs(0.6, {"size_mb": 99.0}))
    assert not asha.record(11, 0, study.goals.costs(0.1, {"size_mb": 1.0}))
    assert not asha.record(12, 0, study.goals.costs(0.95, {"size_mb": 99.0}))
    study.close()


def test_rungs_of_pretrainings_are_rebuilt_by_their_epochs(run: RunDirectory) -> None:
    """A changed space may have more of them: values of other epochs must not meet."""
    tried = experiment()
    study = open_study(tried, run)
    for number, accuracy in enumerate([0.5, 0.6]):
        assert study.ask() is not None
        study.note_pretraining(number, 25, accuracy)
        # The objective is smaller where it is better.
        study.report(number, -1, 1 - accuracy)
    config = tried.defaults().search.scheduler
    asha = create_asha(study, config, 2, [25, 50])
    assert isinstance(asha, Asha)
    assert asha.cutoff(0, -1) is None
    cutoff = asha.cutoff(0, -2)
    assert cutoff is not None
    assert 0.4 <= cutoff < 0.5
    assert asha.record(7, -2, 0.55)
    assert not asha.record(8, -2, 0.3)
