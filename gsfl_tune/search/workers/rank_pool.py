"""The processes that train a trial together with its worker: one for each further GPU.

They are children of the worker, on its node and within its resources, so Ray does not manage them.
They end with the worker, as their standard input ends. If one of them dies, the whole trial fails
and is started again from its checkpoint. They live on from trial to trial, as the worker does. See
`gsfl_tune.search.workers.rank_main` for their side.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.search.workers.machine_faults import environment_problem
from gsfl_tune.training.fingerprint import FitOn
from gsfl_tune.training.pretrain import PretrainingFailed
from gsfl_tune.training.process_group import Divided, Ranks
from gsfl_tune.training.training import NonFiniteLoss

# Longest time until the cause of a rank's end is known, after another rank lost contact.
_CAUSE_SECONDS = 5.0
# Gloo notices a lost rank; a collective of GPUs, or a group that is forming, hangs.
_HANG_SECONDS = 30.0
_POLL_SECONDS = 0.05


class RankLost(RuntimeError):
    """Raised when a process of a trial died or failed; its checkpoint can be continued."""


class RankTask(BaseModel):
    """Describes a training for a rank.

    Attributes:
        rank: 1..size-1.
        size: Number of ranks.
        meeting: File through which ranks find each other.
        config: The configuration.
        seed: Seed of the training.
        fit: Which images it is trained on.
        directory: Directory of the trial; only rank 0 writes there.
        side: Side of the decoded squares.
        cache_dir: Root of the node's caches.
        threads: CPU threads.
        pieces: Parts that a batch is trained in, see `Training`.
        fold: Number of the fold that is held out, and number of folds; None without folds.
        pretraining: Name of the pretraining of `config` that is trained; empty for a training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int
    size: int
    meeting: Path
    config: Config
    seed: int
    fit: FitOn
    directory: Path
    side: int
    cache_dir: Path
    threads: int
    pieces: int
    fold: tuple[int, int] | None = None
    pretraining: str = ""


class RankProcesses:
    """Holds the ranks from 1 on as child processes, see `gsfl_tune.training.process_group.Team`.

    Args:
        size: Number of ranks, the caller's process included.
        threads: CPU threads of each.
    """

    def __init__(self, size: int, threads: int = 1) -> None:
        self.size = size
        self.threads = threads
        self._processes: list[_RankProcess] = []
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

    def gather(self, task: Callable[[int, Path], RankTask], device: torch.device) -> Ranks:
        """Starts missing processes, and forms the group, for any task.

        Args:
            task: Makes the task of a rank, from its number and the file of the meeting.
            device: Device of this process.

        Raises:
            RankLost: When one cannot be started.
        """
        self.leave()
        if any(not process.alive for process in self._processes):
            self._kill()
        if not self._processes:
            self._processes = [
                _RankProcess(rank, self.threads, self._ended) for rank in range(1, self.size)
            ]
        self._working = True
        self._meetings.append(tempfile.TemporaryDirectory(prefix="gsfl-ranks-"))
        meeting = Path(self._meetings[-1].name, "meeting")
        for process in self._processes:
            own = task(process.rank, meeting)
            process.tell({"train": own.model_dump(mode="json")})
        self._wait_until_ready()
        self._forget_meetings(self._meetings[:-1])  # ready: every process has left its last group
        self._ranks = Ranks(0, self.size, meeting, device)
        return self._ranks

    def _task(self, training: Divided, rank: int, meeting: Path) -> RankTask:
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
            cache_dir=training.workspace.cache_dir,
            threads=self.threads,
            pieces=training.pieces,
            fold=None if fold is None else (fold.number, fold.count),
        )

    def next_epoch(self) -> None:
        """Starts the next epoch in all processes.

        Raises:
            RankLost: When a process has died since the last epoch.
        """
        self._working = True
        for process in self._processes:
            if not process.alive:
                raise process.cause()
        for process in self._processes:
            process.tell({"epoch": True})

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
        deadline = time.monotonic() + _CAUSE_SECONDS
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


class _RankProcess:
    """Holds one rank: its process, and a thread that reads its reports."""

    def __init__(self, rank: int, threads: int, ended: Any) -> None:
        self.rank = rank
        self.report: dict[str, Any] | None = None
        self._on_end = ended
        self._killed = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gsfl_tune.search.workers.rank_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(rank, threads),
            text=True,
            start_new_session=True,  # the driver handles Ctrl-C in a terminal
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input: IO[str] = self._process.stdin
        self._thread = threading.Thread(
            target=self._listen, args=(self._process.stdout,), name=f"rank-{rank}", daemon=True
        )
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Returns whether it runs and has not failed."""
        return self._process.poll() is None and "broken" not in (self.report or {})

    def tell(self, message: dict[str, Any]) -> None:
        """Sends a command; the loss of the process is noticed elsewhere."""
        if "train" in message:
            self.report = None
        with suppress(OSError):
            self._input.write(json.dumps(message) + "\n")
            self._input.flush()

    def cause(self) -> Exception:
        """Returns why the process is gone."""
        self._thread.join(1.0)
        broken = (self.report or {}).get("broken")
        if broken is not None:
            return _exception(broken["kind"], f"rank {self.rank}: {broken['message']}")
        code = self._process.poll()
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return RankLost(f"rank {self.rank}, a process of the trial, died ({how})")

    def kill(self) -> None:
        """Kills the process and waits for its end."""
        self._killed = True
        self._process.kill()
        self._process.wait()
        with suppress(OSError):
            self._input.close()
        self._thread.join()

    def _listen(self, output: IO[str]) -> None:
        with output:
            for line in output:
                self.report = json.loads(line)
        self._process.wait()
        if not self._killed:
            self._on_end()


Kind = Literal["memory", "user", "environment", "other"]


def kind_of(error: BaseException) -> Kind:
    """Returns the kind under which a rank reports its failure."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "memory"
    if isinstance(error, Exception) and environment_problem(error) is not None:
        return "environment"
    return "user" if isinstance(error, UserError) else "other"


def _exception(kind: Kind, message: str) -> Exception:
    if kind == "memory":
        return torch.OutOfMemoryError(message)
    if kind == "environment":
        return EnvironmentProblem(message)
    return UserError(message) if kind == "user" else RankLost(message)


def _environment(rank: int, threads: int) -> dict[str, str]:
    """Returns the environment of a rank: only its own GPU, and the packages of this process."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    environment["OMP_NUM_THREADS"] = str(threads)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible is not None else []
    if visible is None:
        environment["CUDA_VISIBLE_DEVICES"] = str(rank)
    elif rank < len(names):
        environment["CUDA_VISIBLE_DEVICES"] = names[rank]
    return environment


_team: RankProcesses | None = None


def team_of(size: int, threads: int = 1) -> RankProcesses | None:
    """Returns the team of this process, kept from trial to trial; None for a single process."""
    global _team
    if size == 1:
        return None
    if _team is None or (_team.size, _team.threads) != (size, threads):
        if _team is not None:
            _team.dismiss()
        _team = RankProcesses(size, threads)
    return _team
