"""Trials that pause and continue, in searches on Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas
import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.search import Interrupt, Watcher
from gsfl_tune.search.observers import checkpoint_retention
from gsfl_tune.search.ray_tune.scheduler import create_asha
from gsfl_tune.training.pricing.cost import checkpoint_bytes
from tests.search.experiments import YAML, experiment, searched
from tests.search.trainables import Judged

PROMOTING = (
    "search.sampler.name=random",
    "search.scheduler.reduction=2",
    "search.scheduler.promote=true",
    "search.trials=14",
)


class Events(Watcher):
    """Notes what happens to trials, and asks to stop after some pauses."""

    def __init__(self, interrupt: Interrupt | None = None, pauses: int = 0) -> None:
        self.paused_trials: list[int] = []
        self.continued: list[int] = []
        self.begun = 0
        # Trials that had begun when a trial ended, by its number.
        self.over: dict[int, int] = {}
        self._interrupt, self._pauses = interrupt, pauses

    def started(self, number: int, params: Any, *, again: bool) -> None:
        self.begun += not again
        if again:
            self.continued.append(number)

    def paused(self, number: int) -> None:
        self.paused_trials.append(number)
        if self._interrupt is not None and len(self.paused_trials) == self._pauses:
            self._interrupt.request()

    def ended(self, number: int) -> None:
        assert number not in self.over
        self.over[number] = self.begun


def check_ended(run: RunDirectory, study: Any, tried: Experiment) -> None:
    """Whatever was stopped is below the cutoff of its rung, by all values that there are."""
    assert study.counts()["RUNNING"] == 0
    asha = create_asha(study, tried.defaults().search.scheduler, 3)
    assert asha is not None
    stopped = {t.number: t.last_step for t in study.trials() if t.state.name == "PRUNED"}
    assert stopped
    assert asha.promotable(stopped) is None
    for trial in study.trials():
        log = EpochLog(run.trial("search", trial.number) / "epochs.jsonl").read()
        last = {0: 1, 1: 2, 2: 4}[trial.last_step]
        assert [record["epoch"] for record in log] == list(range(1, last + 1))


@pytest.mark.slow
def test_what_later_trials_show_to_be_good_continues_where_it_was(
    run: RunDirectory, two_slots: Slots, cache_dir: Path, ray_of_tests: None
) -> None:
    tried, events = experiment(*PROMOTING), Events()
    outcome = searched(
        tried,
        run,
        resources=two_slots,
        cache_dir=cache_dir,
        save_seconds=0,
        watchers=[events],
        trainable=Judged,
    )
    check_ended(run, outcome.study, tried)
    assert 2 in events.continued
    assert set(events.continued) <= set(events.paused_trials)
    assert outcome.study.trial(2).last_step > 0
    ended = {trial.number: trial.state.name for trial in outcome.study.trials()}
    for number, state in ended.items():
        if state == "PRUNED":
            # A paused trial keeps its checkpoint, a stopped one does not.
            assert not list(run.trial("search", number).glob("checkpoint*.pt"))
    table = pandas.read_parquet(run.trials_parquet)
    assert dict(zip(table["number"], table["state"], strict=True)) == ended


@pytest.mark.slow
def test_paused_trials_survive_an_interrupt(
    run: RunDirectory, two_slots: Slots, cache_dir: Path, ray_of_tests: None
) -> None:
    tried, interrupt = experiment(*PROMOTING), Interrupt(run)
    options: dict[str, Any] = {"resources": two_slots, "cache_dir": cache_dir, "save_seconds": 0}
    stopping = Events(interrupt, pauses=2)
    first = searched(tried, run, interrupt=interrupt, watchers=[stopping], **options)
    assert first.interrupted
    assert first.study.paused()
    second = searched(tried, run, **options)
    assert not second.interrupted
    check_ended(run, second.study, tried)
    assert second.study.created() == 14


@pytest.mark.slow
def test_the_end_of_paused_trials_without_room_is_told(
    run: RunDirectory,
    two_slots: Slots,
    cache_dir: Path,
    ray_of_tests: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoint_retention, "SECONDS_BETWEEN_LOOKS", 0.0)
    tried = experiment(*PROMOTING)
    # Two trials at once with two checkpoints each, and hardly anything else.
    budget = f"search.disk_budget={int(4.5 * checkpoint_bytes(tried) / 1000)}kB"
    events = Events()
    outcome = searched(
        experiment(*PROMOTING, budget),
        run,
        resources=two_slots,
        cache_dir=cache_dir,
        save_seconds=0,
        watchers=[events],
    )
    ended = {trial.number: trial.state.name for trial in outcome.study.trials()}
    assert set(events.over) == set(ended)
    # All others wait until the search is over.
    early = [n for n, begun in events.over.items() if begun < 14 and ended[n] == "PRUNED"]
    assert early
    assert set(early) <= set(events.paused_trials)


@pytest.mark.slow
def test_a_limit_of_time_ends_paused_trials_too(
    run: RunDirectory, two_slots: Slots, cache_dir: Path, ray_of_tests: None
) -> None:
    tried = experiment(*PROMOTING, "search.trials=100000", "search.time_budget=45s")
    events = Events()
    outcome = searched(
        tried, run, resources=two_slots, cache_dir=cache_dir, save_seconds=0, watchers=[events]
    )
    assert outcome.ended is not None
    assert events.paused_trials
    assert outcome.study.counts()["RUNNING"] == 0
    cut = {t.number for t in outcome.study.trials() if "ended" in t.user_attrs}
    # ASHA has stopped the paused trials, not the time.
    assert len(cut) <= two_slots.count


def test_nothing_pauses_without_a_scheduler() -> None:
    text = YAML.replace("grace: 1, reduction: 3", "name: none, promote: true")
    with pytest.raises(ExperimentError, match=r"search\.scheduler\.promote"):
        Experiment.parse(text)
