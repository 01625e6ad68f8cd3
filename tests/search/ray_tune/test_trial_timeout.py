"""Which trials are ended from outside, and with which reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial

from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.search.ray_tune import trial_timeout
from gsfl_tune.search.ray_tune.trial_timeout import Deadlines
from gsfl_tune.search.ray_tune.worker_losses import Failure
from tests.search.ray_tune.test_searcher import Setup
from tests.waiting import wait_until

HOUR = 3600.0


@ray.remote(num_cpus=0)
class Process:
    """The process of a trial."""

    def answers(self) -> bool:
        return True


class Watched:
    """A trial that began in this process after an earlier one had trained for an hour."""

    def __init__(self, run: RunDirectory) -> None:
        self.setup = Setup(run, budget=2)
        log = EpochLog(run.trial("search", 0) / "epochs.jsonl")
        log.append({"epoch": 1, "seconds": HOUR, "validation/nll": 3.0})
        self.setup.suggest()
        self.process = Process.remote()
        self.trial = Trial("stub", trial_id="ray-1", stub=True)
        self.trial.temporary_state.ray_actor = self.process
        self.away = 0.0

    def deadlines(self, timeout: float | None) -> Deadlines:
        return Deadlines(timeout, self.setup.searcher, lambda: self.away)

    @property
    def alive(self) -> bool:
        """Whether the process of the trial answers."""
        try:
            return bool(ray.get(self.process.answers.remote(), timeout=60))
        except RayActorError:
            return False

    def ends(self) -> None:
        """Waits for the end of the process, which Ray asks to end and does not wait for."""
        wait_until(lambda: not self.alive, "the process of the trial has ended", timeout=60)


@pytest.fixture
def watched(
    ray_of_tests: None, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Watched]:
    monkeypatch.setattr(trial_timeout, "GRACE_SECONDS", 0.0)
    one = Watched(run)
    yield one
    ray.kill(one.process)


def test_a_trial_that_does_not_answer_is_ended_for_good_with_its_reason(watched: Watched) -> None:
    deadlines = watched.deadlines(HOUR)
    deadlines.on_trial_start(0, [], watched.trial)
    for _ in range(3):
        deadlines.on_step_end(0, [])
    watched.ends()
    # Its process has died, as far as Ray knows: that is not tried again.
    watched.setup.lose(Failure("process", "the worker process died"))
    ended = watched.setup.study.trial(0)
    assert ended.state.name == "FAIL"
    assert ended.user_attrs["reason"] == (
        "longer than search.trial_timeout (3600 s): no answer after 3600 s, its process was ended"
    )


@pytest.mark.parametrize("timeout", [None, HOUR + 60])
def test_a_trial_within_its_time_is_left_alone(watched: Watched, timeout: float | None) -> None:
    deadlines = watched.deadlines(timeout)
    deadlines.on_trial_start(0, [], watched.trial)
    deadlines.on_step_end(0, [])
    assert watched.alive


def test_a_slow_trial_is_given_time_to_end_by_itself(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_timeout, "GRACE_SECONDS", 60.0)
    deadlines = watched.deadlines(HOUR)
    deadlines.on_trial_start(0, [], watched.trial)
    deadlines.on_step_end(0, [])
    assert watched.alive


@pytest.mark.parametrize("end", ["on_trial_complete", "on_trial_error", "on_trial_recover"])
def test_what_has_ended_is_not_ended_again_until_it_starts_again(
    watched: Watched, end: str
) -> None:
    deadlines = watched.deadlines(HOUR)
    deadlines.on_trial_start(0, [], watched.trial)
    getattr(deadlines, end)(0, [], watched.trial)
    deadlines.on_step_end(0, [])
    assert watched.alive
    deadlines.on_trial_start(0, [], watched.trial)
    deadlines.on_step_end(0, [])
    watched.ends()


def test_the_time_without_a_storage_is_not_the_trials_own(watched: Watched) -> None:
    # What was before the trial is nothing that it waited for.
    watched.away = HOUR
    deadlines = watched.deadlines(HOUR)
    deadlines.on_trial_start(0, [], watched.trial)
    watched.away += 60.0
    deadlines.on_step_end(0, [])
    assert watched.alive
    deadlines.on_trial_start(0, [], watched.trial)
    deadlines.on_step_end(0, [])
    watched.ends()


def test_a_trial_without_a_process_has_nothing_to_end(watched: Watched) -> None:
    watched.trial.temporary_state.ray_actor = None
    deadlines = watched.deadlines(HOUR)
    deadlines.on_trial_start(0, [], watched.trial)
    deadlines.on_step_end(0, [])
    assert watched.alive
    watched.setup.lose(Failure("node", "its node was lost"))
    # It was never condemned: it is handed out again.
    assert watched.setup.study.running() == [0]
    assert watched.setup.suggest()["number"] == 0
