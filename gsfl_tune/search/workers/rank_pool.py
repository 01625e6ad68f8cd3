"""The processes that train a trial together with its worker: one for each further GPU.

They are children of the worker, on its node and in its resources, so that Ray needs to know nothing
of them: a worker that dies takes them along (their standard input ends), and when one of them dies
the trial fails as a whole and is started again from its checkpoint. They outlive a trial, as the
worker does. See `gsfl_tune.search.workers.rank_main` for their side.
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.search.workers.machine_faults import environment_problem
from gsfl_tune.training.fingerprint import FitOn
from gsfl_tune.training.process_group import Divided, Ranks
from gsfl_tune.training.training import NonFiniteLoss

# What ended a rank is known this long after another one was left alone, at the latest.
_CAUSE_SECONDS = 5.0
# Gloo notices that a rank is gone; a GPU's collective, or a group that forms, waits for it.
_HANG_SECONDS = 30.0
_POLL_SECONDS = 0.05


class RankLost(RuntimeError):
    """A process of a trial died or broke; the trial can go on from its checkpoint."""


class RankTask(BaseModel):
    """What a rank is told about a training.

    Attributes:
        rank: 1..size-1.
        size: Number of ranks.
        meeting: File by which ranks find each other.
        config: The configuration.
        seed: Seed of the training.
        fit: Which images it is trained on.
        directory: Of the trial; only rank 0 writes there.
        side: Side of the decoded squares.
        cache_dir: Root of the node's caches.
        threads: CPU threads.
        pieces: Parts that a batch is trained in, see `Training`.
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


class RankProcesses:
    """Ranks 1.. as child processes, see `gsfl_tune.training.process_group.Team`.

    Args:
        size: Number of ranks, the caller's process included.
        threads: CPU threads of each.
    """

    def __init__(self, size: int, threads: int = 1) -> None:
        self.size = size
        self.threads = threads
        self._processes: list[_RankProcess] = []
        self._meeting: tempfile.TemporaryDirectory[str] | None = None
        self._ranks: Ranks | None = None
        self._working = False

    def start(self, training: Divided) -> Ranks:
        """Starts those that do not run, and forms the group.

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
        self._meeting = tempfile.TemporaryDirectory(prefix="gsfl-ranks-")
        meeting = Path(self._meeting.name, "meeting")
        for process in self._processes:
            task = RankTask(
                rank=process.rank,
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
            )
            process.tell({"train": task.model_dump(mode="json")})
        self._wait_until_ready()
        self._ranks = Ranks(0, self.size, meeting, training.device)
        return self._ranks

    def next_epoch(self) -> None:
        """Has all of them train the next epoch.

        Raises:
            RankLost: When one has died since the last one.
        """
        self._working = True
        for process in self._processes:
            if not process.alive:
                raise process.cause()
        for process in self._processes:
            process.tell({"epoch": True})

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Raises what broke another rank in place of what this one felt of it.

        Raises:
            torch.OutOfMemoryError: When another rank's memory was too small.
            UserError: When another rank found a mistake of the user's.
            EnvironmentProblem: When the machine failed another rank.
            RankLost: When another rank died, or broke in another way.
        """
        try:
            yield
        except NonFiniteLoss:  # all ranks see the same loss, and stop
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
        """Frees the others for the next training; those in the middle of an epoch are ended."""
        if self._working:
            self._kill()
        elif self._ranks is not None:
            for process in self._processes:
                process.tell({"end": True})
        if self._ranks is not None:
            ranks, self._ranks = self._ranks, None
            ranks.close()
        if self._meeting is not None:
            meeting, self._meeting = self._meeting, None
            meeting.cleanup()

    def dismiss(self) -> None:
        """Ends all processes."""
        self.leave()
        self._kill()

    def _wait_until_ready(self) -> None:
        while any(process.report is None and process.alive for process in self._processes):
            time.sleep(_POLL_SECONDS)
        if any(process.report != {"ready": True} for process in self._processes):
            raise self._cause() or RankLost("a process of the trial did not start")

    def _cause(self) -> Exception | None:
        """What ended another rank; None if all live."""
        deadline = time.monotonic() + _CAUSE_SECONDS
        while all(process.alive for process in self._processes):
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL_SECONDS)
        time.sleep(10 * _POLL_SECONDS)  # the others fall over the first one: hear them all
        ended = [process.cause() for process in self._processes if not process.alive]
        return min(ended, key=lambda each: isinstance(each, RankLost))

    def _ended(self) -> None:
        """Called by the thread of a rank that is gone: ends this one if nobody notices."""
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
    """One rank: its process, and a thread that reads what it says."""

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
            start_new_session=True,  # Ctrl-C in a terminal is the driver's
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
        """Whether it runs and has not broken."""
        return self._process.poll() is None and "broken" not in (self.report or {})

    def tell(self, message: dict[str, Any]) -> None:
        """Sends a command; one that is gone hears nothing, which others will notice."""
        if "train" in message:
            self.report = None
        with suppress(OSError):
            self._input.write(json.dumps(message) + "\n")
            self._input.flush()

    def cause(self) -> Exception:
        """Why it is gone."""
        self._thread.join(1.0)
        broken = (self.report or {}).get("broken")
        if broken is not None:
            return _exception(broken["kind"], f"rank {self.rank}: {broken['message']}")
        code = self._process.poll()
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return RankLost(f"rank {self.rank}, a process of the trial, died ({how})")

    def kill(self) -> None:
        """Ends it and waits for it."""
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
    """What a rank says of its failure."""
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
    """Of a rank: its own GPU alone, and the packages of this process."""
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
    """The team of this process, kept from trial to trial; None for a trial of one process."""
    global _team
    if size == 1:
        return None
    if _team is None or (_team.size, _team.threads) != (size, threads):
        if _team is not None:
            _team.dismiss()
        _team = RankProcesses(size, threads)
    return _team
