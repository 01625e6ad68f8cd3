"""One further rank of a trial: its process, and why it came to nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any, Literal, Protocol

import torch

from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.search.workers.machine_faults import environment_problem

# Variable with the IP address of a rank's node, where ranks may be on several.
ADDRESS = "GSFL_TUNE_RANK_ADDRESS"


class RankLost(RuntimeError):
    """Raised when a process of a trial died or failed; its checkpoint can be continued."""


class Rank(Protocol):
    """Describes one further rank to its team.

    Attributes:
        rank: 1..size-1.
        report: Its last report; None from the beginning of a training until there is one.
    """

    rank: int
    report: dict[str, Any] | None

    @property
    def alive(self) -> bool:
        """Returns whether it runs and has not failed."""

    def tell(self, message: dict[str, Any]) -> None:
        """Sends a command; the loss of the rank is noticed elsewhere."""

    def cause(self) -> Exception:
        """Returns why it is gone."""

    def kill(self) -> None:
        """Ends it."""


class RankProcess:
    """Holds one rank: its process, and a thread that reads its reports.

    Args:
        rank: 1..size-1.
        threads: CPU threads.
        ended: Called by the thread when the process has ended by itself.
        heard: Called by the thread after a report.
        variables: Further variables of its environment.
    """

    def __init__(
        self,
        rank: int,
        threads: int,
        ended: Callable[[], None],
        heard: Callable[[], None] = lambda: None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.rank = rank
        self.report: dict[str, Any] | None = None
        self._on_end = ended
        self._on_report = heard
        self._killed = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gsfl_tune.search.workers.rank_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**_environment(rank, threads), **(variables or {})},
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
            return error_of(broken["kind"], f"rank {self.rank}: {broken['message']}")
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
                self._on_report()
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


def error_of(kind: Kind, message: str) -> Exception:
    """Returns the error that a rank reported, for the process of rank 0."""
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
