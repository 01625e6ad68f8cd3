"""Proposals that a separate process computes in advance."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gsfl_tune.child_environment import child_environment

# Number of the first trial that is proposed ahead. Before it, TPE takes some milliseconds and
# runs when a trial is requested, so that it knows every result. The others cost next to nothing
# (random, sobol, grid).
FIRST = {"tpe": 200, "gp": 10, "cmaes": 200}
# The process starts this many trials earlier: its imports take a second.
HEAD_START = 8


class Ahead:
    """Requests the next proposal while the last trial is being started.

    The proposal for trial n + 1 depends only on the journal as it was when trial n was handed out.
    So it depends on the order of events and not on their speed. A free worker finds its proposal
    ready; the proposal knows all results except that of the trial which this worker just finished.

    Args:
        experiment: The experiment as YAML, its bounds clamped to the data.
        journal: File of the run's journal.
        study: Name of the study.
        sampler: Name of its sampler.
        on_loss: Called once with the reason when proposals are no longer computed ahead.
    """

    def __init__(
        self,
        experiment: str,
        journal: Path,
        study: str,
        sampler: str,
        on_loss: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._greeting = {"experiment": experiment, "journal": str(journal), "study": study}
        self._first = FIRST.get(sampler)
        self.on_loss = on_loss
        self._process: subprocess.Popen[str] | None = None
        self._asked: dict[str, int] | None = None

    def covers(self, number: int) -> bool:
        """Returns whether trial `number` is proposed ahead."""
        return self._first is not None and number >= self._first

    def prepare(self, number: int, until: int) -> None:
        """Starts the computation of a proposal.

        Args:
            number: Number of the trial, the next one to be created.
            until: Length of the journal in bytes that the proposal may use.
        """
        if self._first is None or number < self._first - HEAD_START:
            return
        question = {"number": number, "until": until}
        try:
            if self._process is None:
                self._process = self._start()
            if self.covers(number) and self._asked != question:
                self._drop()
                self._send(question)
                self._asked = question
        except OSError as error:
            self._lose(str(error))

    def take(self, number: int, until: int) -> dict[str, Any] | None:
        """Returns the proposal, waiting for it if necessary; None if the process is gone."""
        self.prepare(number, until)
        if self._asked is None:
            return None
        answer = self._receive()
        return None if answer is None else answer["params"]

    def close(self) -> None:
        """Ends the process."""
        process, self._process, self._asked = self._process, None, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        # In the middle of a proposal, the process would notice closed input only later.
        process.kill()
        process.wait()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "gsfl_tune.search.study.prefetch_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # A separate process group: Ctrl-C is handled by the driver only.
            start_new_session=True,
            env=child_environment(OMP_NUM_THREADS="1"),
        )
        self._process = process
        self._send(self._greeting)
        return process

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any] | None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._asked = None
        try:
            line = self._process.stdout.readline()
            answer: dict[str, Any] = json.loads(line) if line else {"error": "its process ended"}
        except (OSError, ValueError) as error:
            answer = {"error": str(error)}
        if "error" in answer:
            self._lose(answer["error"])
            return None
        return answer

    def _drop(self) -> None:
        """Discards a proposal for a trial that did not become the next one."""
        if self._asked is not None:
            self._receive()

    def _lose(self, reason: str) -> None:
        self.close()
        self._first = None
        self.on_loss(f"proposals are no longer computed ahead: {reason}")
