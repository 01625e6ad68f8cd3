"""The processes that train a trial together with its worker: one for each further GPU.

They are children of the worker, on its node and within its resources, so Ray does not manage them.
They end with the worker, as their standard input ends. If one of them dies, the whole trial fails
and is started again from its checkpoint. They live on from trial to trial, as the worker does. See
`gsfl_tune.search.workers.rank_main` for their side.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run.storage import RunAddress
from gsfl_tune.search.workers.rank_process import Rank, RankLost, RankProcess
from gsfl_tune.search.workers.settings import WorkerSettings
from gsfl_tune.training.fingerprint import FitOn
from gsfl_tune.training.pretrain import PretrainingFailed
from gsfl_tune.training.process_group import Divided, Ranks
from gsfl_tune.training.training import NonFiniteLoss

# Gloo notices a lost rank; a collective of GPUs, or a group that is forming, hangs.
_HANG_SECONDS = 30.0
_POLL_SECONDS = 0.05


# Where ranks find each other: a file, or address and port of a store.
Meeting = Path | tuple[str, int]


class RankTask(BaseModel):
    """Describes a training for a rank.

    Attributes:
        rank: 1..size-1.
        size: Number of ranks.
        meeting: Where ranks find each other: a file, or address and port of a store.
        config: The configuration.
        seed: Seed of the training.
        fit: Which images it is trained on.
        directory: Directory of the trial; only rank 0 writes there.
        side: Side of the decoded squares.
        cache_dir: Root of the node's caches; None for the node's own default.
        storage: Storage of the run, where nodes may share their caches.
        threads: CPU threads.
        shards: Whether trained parameters are divided.
        pieces: Parts that a batch is trained in, see `Training`.
        fold: Number of the fold that is held out, and number of folds; None without folds.
        pretraining: Name of the pretraining of `config` that is trained; empty for a training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int
    size: int
    meeting: Meeting
    config: Config
    seed: int
    fit: FitOn
    directory: Path
    side: int
    cache_dir: Path | None
    storage: RunAddress | None = None
    threads: int
    shards: bool = False
    pieces: int
    fold: tuple[int, int] | None = None
    pretraining: str = ""


class RankProcesses:
    """Holds the ranks from 1 on as child processes, see `gsfl_tune.training.process_group.Team`.

    Args:
        size: Number of ranks, the caller's process included.
        threads: CPU threads of each.
        shards: Whether they divide the trained parameters too.
    """

    def __init__(self, size: int, threads: int = 1, *, shards: bool = False) -> None:
        self.size = size
        self.threads = threads
        self.shards = shards
        self._processes: list[Rank] = []
        # A process that leaves a group touches the group's file once more, and dies without it.
        self._meetings: list[tempfile.TemporaryDirectory[str]] = []
        self._ranks: Ranks | None = None
        self._working = False

    def start(self, training: Divided) -> Ranks:
        """Starts missing processes, and forms the group.

        Raises:
            RankLost: When one cannot be started.
        """
        return self.gather(partial(self._task, training), training.device)

    def gather(self, task: Callable[[int, Meeting], RankTask], device: torch.device) -> Ranks:
        """Starts missing processes, and forms the group, for any task.

        Args:
            task: Makes the task of a rank, from its number and the place of the meeting.
            device: Device of this process.

        Raises:
            RankLost: When one cannot be started.
        """
        self.leave()
        if any(not process.alive for process in self._processes):
            self._kill()
        if not self._processes:
            self._processes = [self._begin(rank) for rank in range(1, self.size)]
        self._working = True
        place, meeting = self._meet()
        for process in self._processes:
            own = task(process.rank, place)
            process.tell({"train": own.model_dump(mode="json")})
        self._wait_until_ready()
        self._forget_meetings(self._meetings[:-1])  # ready: every process has left its last group
        self._ranks = Ranks(
            0, self.size, meeting, device, shards=self.shards, address=self._address
        )
        return self._ranks

    def _task(self, training: Divided, rank: int, meeting: Meeting) -> RankTask:
        fold = training.workspace.fold
        return RankTask(
            rank=rank,
            size=self.size,
            meeting=meeting,
            config=training.config,
            seed=training.seed,
            fit=training.fit,
            directory=training.directory,
            side=training.workspace.dataset.pool.side,
            cache_dir=self._cache_dir(training),
            storage=self.storage,
            threads=self.threads,
            shards=self.shards,
            pieces=training.pieces,
            fold=None if fold is None else (fold.number, fold.count),
        )

    # --- what differs where ranks are on other nodes ------------------------------------------

    # Longest time until the cause of a rank's end is known, after another rank lost contact.
    _cause_seconds = 5.0
    # IP address of this node, where the others may be on other nodes.
    _address: str | None = None
    # Of the run, for nodes that have caches of their own.
    cache_dir: Path | None = None
    storage: RunAddress | None = None

    def _begin(self, rank: int) -> Rank:
        """Starts the process of a rank."""
        return RankProcess(rank, self.threads, self._ended)

    def _meet(self) -> tuple[Path | tuple[str, int], Path | dist.Store]:
        """Returns where ranks find each other, as the others and as this one know it."""
        self._meetings.append(tempfile.TemporaryDirectory(prefix="gsfl-ranks-"))
        meeting = Path(self._meetings[-1].name, "meeting")
        return meeting, meeting

    def _cache_dir(self, training: Divided) -> Path | None:
        """Returns the root of the caches of the other ranks."""
        return training.workspace.cache_dir

    # ------------------------------------------------------------------------------------------

    def next_epoch(self) -> None:
        """Starts the next epoch in all processes.

        Raises:
            RankLost: When a process has died since the last epoch.
        """
        self._tell_all({"epoch": True})

    def next_state(self) -> None:
        """Starts the joining of divided parameters in all processes.

        Raises:
            RankLost: When a process has died since the last epoch.
        """
        self._tell_all({"state": True})

    def _tell_all(self, command: dict[str, Any]) -> None:
        self._working = True
        for process in self._processes:
            if not process.alive:
                raise process.cause()
        for process in self._processes:
            process.tell(command)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Raises the original error of another rank in place of its effect on this one.

        Raises:
            torch.OutOfMemoryError: When another rank's memory was too small.
            UserError: When another rank found a mistake of the user's.
            EnvironmentProblem: When the machine failed another rank.
            RankLost: When another rank died, or broke in another way.
        """
        try:
            yield
        except (NonFiniteLoss, PretrainingFailed):  # all ranks see the same loss, and stop
            self._working = False
            raise
        except (UserError, OSError, torch.OutOfMemoryError):
            self._kill()
            raise
        except Exception as error:
            cause = self._cause()
            self._kill()
            if cause is None:
                raise
            raise cause from error
        self._working = False

    def leave(self) -> None:
        """Frees the other ranks for the next training; ranks in the middle of an epoch end."""
        if self._working:
            self._kill()
        elif self._ranks is not None:
            for process in self._processes:
                process.tell({"end": True})
        if self._ranks is not None:
            ranks, self._ranks = self._ranks, None
            ranks.close()
        if not self._processes:
            self._forget_meetings(self._meetings)

    def dismiss(self) -> None:
        """Ends all processes."""
        self.leave()
        self._kill()
        self._forget_meetings(self._meetings)

    def _forget_meetings(self, meetings: list[tempfile.TemporaryDirectory[str]]) -> None:
        for meeting in list(meetings):
            self._meetings.remove(meeting)
            meeting.cleanup()

    def _wait_until_ready(self) -> None:
        while any(process.report is None and process.alive for process in self._processes):
            time.sleep(_POLL_SECONDS)
        if any(process.report != {"ready": True} for process in self._processes):
            raise self._cause() or RankLost("a process of the trial did not start")

    def _cause(self) -> Exception | None:
        """Returns the error that ended another rank; None if all are alive."""
        deadline = time.monotonic() + self._cause_seconds
        while all(process.alive for process in self._processes):
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL_SECONDS)
        time.sleep(10 * _POLL_SECONDS)  # others fail because of the first one: wait for all
        ended = [process.cause() for process in self._processes if not process.alive]
        return min(ended, key=lambda each: isinstance(each, RankLost))

    def _ended(self) -> None:
        """Ends this process if no error surfaces; called by the thread of a lost rank."""
        ranks, deadline = self._ranks, time.monotonic() + _HANG_SECONDS
        while self._working and self._ranks is ranks:
            if time.monotonic() > deadline:
                # Ray starts the trial again in a new process.
                print("a rank died, and a collective of this one hangs: ending", file=sys.stderr)
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(_POLL_SECONDS)

    def _kill(self) -> None:
        processes, self._processes = self._processes, []
        self._working = False
        for process in processes:
            process.kill()


# Makes teams whose ranks may be on other nodes, where there are nodes; see `spread_by`.
_spread: type[RankProcesses] = RankProcesses
_team: RankProcesses | None = None


def spread_by(kind: type[RankProcesses]) -> None:
    """Sets the class of the teams that divide parameters, in a process of a cluster.

    Args:
        kind: Made as `RankProcesses` is.
    """
    global _spread
    _spread = kind


def team_for(settings: WorkerSettings) -> RankProcesses | None:
    """Returns the team of a trial or retrain with these settings; None for a single process."""
    team = team_of(settings.workers, settings.threads, shards=settings.shard)
    if team is not None:
        team.cache_dir, team.storage = settings.cache_dir, settings.storage
    return team


def team_of(size: int, threads: int = 1, *, shards: bool = False) -> RankProcesses | None:
    """Returns the team of this process, kept from trial to trial; None for a single process."""
    global _team
    if size == 1:
        return None
    if _team is None or (_team.size, _team.threads, _team.shards) != (size, threads, shards):
        if _team is not None:
            _team.dismiss()
        _team = (_spread if shards else RankProcesses)(size, threads, shards=shards)
    return _team
