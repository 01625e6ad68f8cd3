"""Searches that end before their trials are used up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.search import (
    Interrupt,
    Study,
    StudyOutcome,
    TimeBudget,
    TrialCosts,
    Watcher,
    choose_finalists,
    open_study,
    refuse_changes,
)
from gsfl_tune.search.control.stop_conditions import Limits, Stopwatch
from gsfl_tune.search.costs.time_budget import SearchTime
from gsfl_tune.search.costs.time_plan import TimePlan
from gsfl_tune.search.observers import checkpoint_retention
from tests.search.experiments import experiment, searched, states
from tests.search.trainables import Troubled

OVERRIDES = ("search.sampler.name=random", "search.scheduler.name=none", "search.trials=7")


class RungClock(Watcher):
    """A clock that goes on by a minute at every rung."""

    def __init__(self, minutes: int = 0) -> None:
        self.minutes = minutes
        self.notices: list[str] = []

    @property
    def seconds(self) -> float:
        return 60.0 * self.minutes

    def rung(self, number: int, k: int, value: float) -> None:
        self.minutes += 1

    def notice(self, text: str) -> None:
        self.notices.append(text)


@pytest.fixture
def search(
    ray_of_tests: None, run: RunDirectory, two_slots: Slots, cache_dir: Path
) -> Callable[..., tuple[StudyOutcome, list[str]]]:
    def run_it(clock: RungClock, *overrides: str, **options: Any) -> tuple[StudyOutcome, list[str]]:
        outcome = searched(
            experiment(*OVERRIDES, *overrides),
            run,
            resources=two_slots,
            cache_dir=cache_dir,
            watchers=[clock],
            clock=clock,
            **options,
        )
        return outcome, clock.notices

    return run_it


def _ended(outcome: StudyOutcome) -> list[Any]:
    return [t for t in outcome.study.trials() if "ended" in t.user_attrs]


@pytest.mark.slow
def test_a_time_budget_ends_a_search_over_all_resumes(
    run: RunDirectory, search: Callable[..., tuple[StudyOutcome, list[str]]]
) -> None:
    clock = RungClock()
    first, notices = search(clock, "search.time_budget=4m")
    assert not first.interrupted
    assert first.ended == "search.time_budget of 4m is used up"
    assert any("time_budget" in text for text in notices)
    counts = first.study.counts()
    assert counts["RUNNING"] == 0
    assert first.study.created() < 7
    for trial in _ended(first):
        assert trial.state.name == "PRUNED"
        values = trial.intermediate_values
        assert trial.value == (values[max(values)] if values else None)
    assert not run.interrupt_file.exists()

    # The time of the first driver counts: nothing is begun, what is there stays.
    before = states(first.study)
    again, _ = search(RungClock(clock.minutes), "search.time_budget=4m")
    assert again.ended
    assert states(again.study) == before

    more, _ = search(RungClock(clock.minutes), "search.time_budget=2d")
    assert more.ended is None
    assert more.study.created() == 7
    assert states(more.study)[: len(before)] == before
    assert more.study.counts()["RUNNING"] == 0


def _late() -> SearchTime:
    """A budget that was used up before the search began."""
    costs = TrialCosts(train=100, validation=20, classes=21)
    plan = TimePlan(
        budget=1.0, spent=0.0, head_epochs=4, finetune_epochs=0, finalists=1, final_seeds=1,
        training=1.0, once=0.0, search=0.1, finals=0.1, evidence=0.1, trials=2, slots=2,
    )  # fmt: skip
    return SearchTime(TimeBudget(plan, lambda: 1.5, costs, control="off", retrain=1.0))


def test_a_search_that_was_over_for_the_finals_is_over_for_a_resume(run: RunDirectory) -> None:
    tried, interrupt = experiment(*OVERRIDES), Interrupt(run)

    def limits(span: tuple[float, float], time_up: str | None) -> tuple[Limits, Study]:
        study = open_study(tried, run)
        search = tried.defaults().search
        return Limits(search, study, Stopwatch(), interrupt, lambda: time_up, span), study

    first, study = limits((600.0, 1.0), "the rest is for the finals")
    study.ask()
    first.look()
    assert first.settle() == [0]
    study.close()
    # Prices that are lower now give no time for trials that would compete with the finals.
    again, study = limits((600.0, 1.0), None)
    again.look()
    assert "was over before" in str(again.reason)
    assert again.settle() == []
    study.close()
    # With more time, or with the whole search in place of a half, trials begin.
    for span in ((1200.0, 1.0), (600.0, 0.5)):
        more, study = limits(span, None)
        more.look()
        assert more.reason is None
        study.close()


@pytest.mark.slow
def test_a_search_whose_time_is_over_at_its_begin_has_a_result(
    search: Callable[..., tuple[StudyOutcome, list[str]]],
) -> None:
    outcome, _ = search(RungClock(), limit=_late())
    assert outcome.ended == "search.time_budget is used up"
    assert any(trial.intermediate_values for trial in outcome.study.trials())
    assert outcome.study.counts()["RUNNING"] == 0
    assert outcome.study.created() < 7


@pytest.mark.slow
def test_with_several_objectives_a_late_search_has_a_trial_that_can_win(
    search: Callable[..., tuple[StudyOutcome, list[str]]],
) -> None:
    # The default scheduler: trials have rungs long before one is at its end.
    outcome, _ = search(
        RungClock(),
        "search.metric=validation/accuracy",
        "search.objectives=[validation/accuracy, validation/nll]",
        "search.scheduler.name=asha",
        "training.head.epochs=30",
        limit=_late(),
    )
    assert outcome.ended == "search.time_budget is used up"
    assert choose_finalists(outcome.study, 1)
    assert outcome.study.counts()["RUNNING"] == 0


@pytest.mark.slow
def test_a_finished_trial_that_reaches_the_target_ends_the_search(
    search: Callable[..., tuple[StudyOutcome, list[str]]],
) -> None:
    # The metric is to be small. No rung counts, however good: only the end of a trial does.
    outcome, _ = search(RungClock(), "search.target=1000")
    best = outcome.study.best()
    assert best is not None
    assert outcome.ended is not None
    assert outcome.ended.startswith("search.target of 1000 is reached by trial")
    assert outcome.study.counts()["RUNNING"] == 0
    assert outcome.study.created() < 7
    # A target that no trial reaches ends nothing.
    rest, _ = search(RungClock(), "search.target=0.000001")
    assert rest.ended is None
    assert rest.study.created() == 7


@pytest.mark.slow
def test_trials_that_hang_or_want_too_much_memory_end_and_the_search_goes_on(
    run: RunDirectory,
    search: Callable[..., tuple[StudyOutcome, list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gsfl_tune.search.ray_tune.trial_timeout.GRACE_SECONDS", 1.0)
    # An earlier process has used up the time of the trial that hangs: nobody waits an hour.
    log = EpochLog(run.trial("search", 1) / "epochs.jsonl")
    log.append({"epoch": 1, "seconds": 3600.0, "validation/nll": 3.0})
    outcome, notices = search(
        RungClock(),
        "search.trials=6",
        "search.trial_timeout=1h",
        "search.keep_checkpoints=1",
        trainable=Troubled,
    )
    trials = outcome.study.trials()
    states = [trial.state.name for trial in trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    reasons = {t.number: t.user_attrs["reason"] for t in trials if "reason" in t.user_attrs}
    assert reasons.keys() == {1, 3}
    assert "longer than search.trial_timeout (3600 s): no answer after 360" in reasons[1]
    assert "its process was ended" in reasons[1]
    assert "out of memory, at half the batch too" in reasons[3]
    halved = [t.number for t in trials if t.user_attrs.get("batch_halved")]
    assert halved == [2, 3]
    assert sum("ran out of memory" in text for text in notices) == 2
    table = pandas.read_parquet(run.trials_parquet)
    assert list(table["number"][table["batch_halved"]]) == halved
    # Of all that has ended, the best alone keeps its checkpoint.
    best = outcome.study.best()
    assert best is not None
    kept = [path.parent.name for path in run.trials().rglob("checkpoint.pt")]
    assert kept == [str(best.number)]


@pytest.mark.slow
def test_a_disk_budget_that_is_used_up_ends_the_search_and_no_trial(
    search: Callable[..., tuple[StudyOutcome, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_retention, "SECONDS_BETWEEN_LOOKS", 0.0)
    epochs = "training.head.epochs=30"
    with pytest.raises(EnvironmentProblem, match=r"search\.disk_budget allows 1kB(.|\n)*--resume"):
        search(RungClock(), epochs, "search.disk_budget=1kB", save_seconds=0)
    outcome, _ = search(RungClock(), epochs, "search.disk_budget=1GB", save_seconds=0)
    assert outcome.study.counts()["COMPLETE"] == 7


@pytest.mark.slow
def test_a_resume_may_change_limits_and_not_the_space(
    run: RunDirectory, search: Callable[..., tuple[StudyOutcome, list[str]]]
) -> None:
    search(RungClock(minutes=1), "search.time_budget=1m")
    refuse_changes(
        run,
        experiment(
            *OVERRIDES,
            "search.trials=70",
            "search.time_budget=2d",
            "search.target=0.1",
            "search.trial_timeout=1h",
            "search.keep_checkpoints=0",
            "search.disk_budget=5GB",
        ),
    )
    with pytest.raises(UserError) as refused:
        refuse_changes(
            run,
            experiment(*OVERRIDES, "model.latent_dim={int: [8, 64]}", "training.head.epochs=5"),
        )
    lines = str(refused.value).splitlines()
    assert any("model.latent_dim: was" in line and "64" in line for line in lines)
    assert any("training.head.epochs: was 4, found 5" in line for line in lines)
    assert len(lines) == 4
