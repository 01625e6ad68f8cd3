from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pandas
import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.experiment.errors import EnvironmentProblem
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.search import Interrupt, StudyOutcome, Watcher, open_study
from tests.search.experiments import experiment, searched, states
from tests.search.trainables import Breaking, Instant, Spent

pytestmark = pytest.mark.usefixtures("ray_of_tests")

RandomSearch = ("search.sampler.name=random", "search.scheduler.reduction=2")


@pytest.fixture
def search(cache_dir: Path) -> Callable[..., StudyOutcome]:
    def run_it(run: RunDirectory, slots: Slots, *overrides: str, **options: Any) -> StudyOutcome:
        options = {"save_seconds": 0, "feature_dim": 512, **options}
        return searched(
            experiment(*overrides), run, resources=slots, cache_dir=cache_dir, **options
        )

    return run_it


class _InterruptAfter(Watcher):
    """Asks to stop when some rungs were reached."""

    def __init__(self, interrupt: Interrupt, rungs: int) -> None:
        self._interrupt = interrupt
        self._left = rungs

    def rung(self, number: int, k: int, value: float) -> None:
        self._left -= 1
        if self._left == 0:
            self._interrupt.request()


def test_a_search_from_beginning_to_end(
    run: RunDirectory, two_slots: Slots, search: Callable[..., StudyOutcome]
) -> None:
    outcome = search(run, two_slots, *RandomSearch, "search.trials=10")
    study = outcome.study
    assert not outcome.interrupted
    counts = study.counts()
    assert counts["COMPLETE"] + counts["PRUNED"] == 10
    assert counts["RUNNING"] == counts["FAIL"] == 0
    assert counts["PRUNED"] > 0
    trials = study.trials()
    # The defaults and the published setting come first and go to their ends.
    assert [trial.user_attrs.get("origin") for trial in trials[:3]] == [
        "defaults",
        "published",
        None,
    ]
    assert all(trial.state.name == "COMPLETE" for trial in trials[:2])
    for trial in trials:
        log = EpochLog(run.trial("search", trial.number) / "epochs.jsonl").read()
        rungs = {0: 1, 1: 2, 2: 4}
        assert list(trial.intermediate_values) == list(range(trial.last_step + 1))  # type: ignore[operator]
        for k, value in trial.intermediate_values.items():
            assert value == log[rungs[k] - 1]["validation/nll"]
        if trial.state.name == "COMPLETE":
            assert trial.last_step == 2
            assert trial.value == log[-1]["validation/nll"]
        else:
            assert len(log) == rungs[trial.last_step or 0]
            assert not (run.trial("search", trial.number) / "checkpoint.pt").exists()
    table = pandas.read_parquet(run.trials_parquet)
    assert list(table["number"]) == list(range(10))
    assert list(table["state"]) == [trial.state.name for trial in trials]
    assert table["params.model.dropout"].notna().all()
    assert not (run.path / ".ray").exists()


@pytest.mark.slow
def test_a_finished_search_is_not_run_again_and_may_be_extended(
    run: RunDirectory, two_slots: Slots, search: Callable[..., StudyOutcome]
) -> None:
    first = states(search(run, two_slots, *RandomSearch, "search.trials=3").study)
    files = {path: path.stat().st_mtime_ns for path in run.trials().rglob("epochs.jsonl")}
    assert states(search(run, two_slots, *RandomSearch, "search.trials=3").study) == first
    more = search(run, two_slots, *RandomSearch, "search.trials=5")
    assert states(more.study)[:3] == first
    assert len(states(more.study)) == 5
    assert all(path.stat().st_mtime_ns == time for path, time in files.items())


@pytest.mark.slow
def test_a_trial_that_breaks_fails_with_its_reason_and_the_search_goes_on(
    run: RunDirectory, two_slots: Slots, search: Callable[..., StudyOutcome]
) -> None:
    study = search(
        run,
        two_slots,
        "search.trials=5",
        "search.max_failures=1",
        "search.scheduler.name=none",
        "search.enqueue=[{training.head.epochs: 0}, "
        "{training.head.epochs: 4, model.latent_dim: 8}, "
        "{training.head.epochs: 4, model.latent_dim: 16}]",
        "training.head.epochs={choice: [4, 0]}",
        feature_dim=None,
        trainable=Breaking,
    ).study
    trials = study.trials()
    # Enqueued, and a combination that the configuration itself refuses.
    assert trials[0].state.name == "FAIL"
    assert "epochs" in trials[0].user_attrs["reason"]
    assert trials[1].state.name == "FAIL"
    assert trials[1].user_attrs["reason"] == "RuntimeError: the GPU is on fire"
    # The worker of trial 2 was killed after its first rung; it went on from its checkpoint.
    assert trials[2].state.name == "COMPLETE"
    assert list(trials[2].intermediate_values) == [0, 1, 2]
    assert study.counts()["RUNNING"] == 0
    assert len(trials) == 5
    log = EpochLog(run.trial("search", 2) / "epochs.jsonl").read()
    assert [record["epoch"] for record in log] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_worker_that_is_spent_is_started_anew_and_no_trial_is_lost(
    run: RunDirectory, one_slot: Slots, search: Callable[..., StudyOutcome]
) -> None:
    class Notices(Watcher):
        texts: ClassVar[list[str]] = []

        def notice(self, text: str) -> None:
            self.texts.append(text)

    # The last trial is the one that is refused: Ray has been told that there are no more.
    study = search(
        run,
        one_slot,
        *RandomSearch,
        "search.trials=2",
        "search.max_failures=0",
        watchers=[Notices()],
        trainable=Spent,
    ).study
    assert [trial.state.name for trial in study.trials()] == ["COMPLETE", "COMPLETE"]
    assert any("300 MiB" in text for text in Notices.texts)


@pytest.mark.slow
def test_a_machine_that_fails_ends_the_search_and_no_trial(
    run: RunDirectory,
    two_slots: Slots,
    search: Callable[..., StudyOutcome],
    tmp_path: Path,
) -> None:
    # Stands for a disk that is full.
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "features").touch()
    overrides = (*RandomSearch, "search.trials=6")
    options: dict[str, Any] = {"feature_dim": None}

    def again(cache: Path) -> StudyOutcome:
        return searched(
            experiment(*overrides), run, resources=two_slots, cache_dir=cache, **options
        )

    with pytest.raises(EnvironmentProblem, match=r"features.*\n.*--resume"):
        again(cache)
    counts = open_study(experiment(*overrides), run).counts()
    assert counts["FAIL"] == counts["COMPLETE"] == counts["PRUNED"] == 0
    assert 1 <= counts["RUNNING"] <= 2
    (cache / "features").unlink()
    study = again(cache).study
    counts = study.counts()
    assert counts["COMPLETE"] + counts["PRUNED"] == 6
    assert counts["FAIL"] == counts["RUNNING"] == 0


@pytest.mark.slow
def test_an_interrupted_search_ends_as_an_uninterrupted_one(
    tmp_path: Path, one_slot: Slots, search: Callable[..., StudyOutcome]
) -> None:
    overrides = (
        "search.sampler.startup_trials=3",
        "search.scheduler.reduction=2",
        "search.scheduler.brackets=2",
        "search.trials=9",
    )
    whole = search(RunDirectory(tmp_path / "whole"), one_slot, *overrides).study
    parts = RunDirectory(tmp_path / "parts")
    interruptions = 0
    for rungs in (7, 1000):
        interrupt = Interrupt(parts)
        outcome = search(
            parts,
            one_slot,
            *overrides,
            interrupt=interrupt,
            watchers=[_InterruptAfter(interrupt, rungs)],
        )
        interruptions += outcome.interrupted
        interrupt.clear()
    assert interruptions == 1
    assert states(outcome.study) == states(whole)
    assert outcome.study.ranking()[0].number == whole.ranking()[0].number
    assert {trial.state.name for trial in whole.trials()} == {"COMPLETE", "PRUNED"}


@pytest.mark.slow
def test_trials_that_are_shorter_than_the_start_of_a_process_use_every_slot(
    run: RunDirectory, two_slots: Slots, search: Callable[..., StudyOutcome]
) -> None:
    short = ("search.trials=100", "training.head.epochs=1", *RandomSearch)
    outcome = search(run, two_slots, *short, trainable=Instant)
    assert outcome.study.counts()["COMPLETE"] == 100
    processes = list(run.trials().rglob("process-*"))
    # Ray alone would give every trial to the first, and never let the second come up.
    assert len(processes) == 2
