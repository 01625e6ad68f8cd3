"""Trials of several processes on Ray: they fail as one, and begin again as one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.search import Job, Watcher
from gsfl_tune.search.workers.rank_pool import RankProcesses
from tests.search.experiments import experiment, retrained, searched
from tests.search.workers.test_rank_pool import FINETUNE, config_of, ranks_below, trained


class Killer(Watcher):
    """Kills -9 once an epoch of the finetune stage is trained by two: rank 1, or rank 0.

    Waits until a rank is there which it has not met, and one more epoch.
    """

    def __init__(self, log: Path, victims: list[Callable[[psutil.Process], psutil.Process]]):
        self._log = EpochLog(log)
        self._victims = victims
        self._seen: dict[int, int] = {}
        self.epochs: list[int] = []
        self.killed: list[psutil.Process] = []
        self.orphans: list[psutil.Process] = []

    def tick(self) -> None:
        if not self._victims:
            return
        for rank in ranks_below(psutil.Process()):
            count = len(self._log.read())
            if count > self._seen.setdefault(rank.pid, count) + 1:
                victim = self._victims.pop(0)(rank)
                victim.send_signal(signal.SIGKILL)
                self.epochs.append(count)
                self.killed.append(victim)
                self.orphans.append(rank)
                # Not once more in the time that it takes to notice.
                self._seen[rank.pid] = 10**9
                return


@pytest.mark.slow
@pytest.mark.parametrize(
    "victim",
    [lambda rank: rank, lambda rank: psutil.Process(rank.ppid())],
    ids=["another process", "the worker"],
)
def test_a_trial_that_loses_a_process_ends_as_if_it_had_not(
    ray_of_tests: None,
    team: RankProcesses,
    run: RunDirectory,
    cache_dir: Path,
    victim: Callable[[psutil.Process], psutil.Process],
) -> None:
    # After two, memory is suspected, and half the batch has other batch norms.
    epochs = 12
    chosen = experiment(
        "model.head=gsfl", *FINETUNE, f"training.finetune.epochs={epochs}", "search.trials=1",
        "search.scheduler.name=none",
    )  # fmt: skip
    team.dismiss()  # else its process would be found too
    killer = Killer(run.trial("search", 0) / "epochs.jsonl", [victim])
    outcome = searched(
        chosen,
        run,
        resources=Slots(cpu=1, gpu=0, count=1, workers=2),
        cache_dir=cache_dir,
        watchers=[killer],
        save_seconds=0,
    )
    assert len(killer.killed) == 1
    assert not outcome.interrupted
    (trial,) = outcome.study.trials()
    assert trial.state.name == "COMPLETE"
    log = EpochLog(run.trial("search", 0) / "epochs.jsonl").read()
    assert [record["epoch"] for record in log] == list(range(1, epochs + 2))
    config = chosen.configure(trial.params)
    # Of one process, the sums of a step would differ in their last digits.
    whole = trained(config, run.path / "undisturbed", cache_dir, team)
    for ours, theirs in zip(log, whole.log.read(), strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    whole.close()
    # A rank does not outlive the trial's worker.
    _, left = psutil.wait_procs(killer.orphans, timeout=30)
    assert left == []


@pytest.mark.slow
def test_retrains_on_ray(ray_of_tests: None, run: RunDirectory, cache_dir: Path) -> None:
    slots = Slots(cpu=1, gpu=0, count=1, workers=2)
    jobs = [
        Job(name=name, config=config_of(), seed=1, directory=run.finals / name, test=True)
        for name in ("first", "second")
    ]
    outcome = retrained(jobs, run, resources=slots, cache_dir=cache_dir)
    first, second = outcome.results
    assert first is not None
    assert second is not None
    assert first["test"] == pytest.approx(second["test"])
