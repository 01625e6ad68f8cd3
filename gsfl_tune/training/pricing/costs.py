"""Seconds of a training on a slot: estimated from its operations, corrected by measurements."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gsfl_tune.training.stages import Work

# Operations a second of one CPU core, until something was measured; a GPU has some thousand times
# as many, and a search that begins with this number believes it until the first rung.
_GUESSED_RATE = 3e10
# Seconds of a step besides its operations: launches, batches, losses.
_GUESSED_STEP = 2e-3
# Seconds of a trial besides its epochs: files, the model, the first batches.
_START_SECONDS = 1.5
# Number of measurements kept per kind of work, as speeds change with heat and other load.
_REMEMBERED = 50
# Stands for the machine of what was not measured by this process; a measurement takes its place.
ASSUMED = "assumed"


@dataclass(frozen=True)
class Measured:
    """Holds measured epochs of one stage of one training.

    Attributes:
        work: Work of one epoch.
        epochs: Number of measured epochs.
        seconds: Duration of these epochs.
        machine: Kind of machine: name of its GPU or CPU.
    """

    work: Work
    epochs: int
    seconds: float
    machine: str = ""


class Costs:
    """Predicts durations of trainings, and learns from measured ones.

    Every kind of work on every kind of machine has a speed of its own, relative to the guess: the
    median of what was measured. A kind without measurements takes the median of its
    stage. Nodes of different speed are averaged, because nobody knows where a trial will run; what
    waits for the last of several trainings is priced for the slowest.

    A measurement whose machine begins with `ASSUMED` counts until a training was measured: on the
    machine that follows, or on any.

    Args:
        rate: Operations per second assumed at first.
    """

    def __init__(self, rate: float = _GUESSED_RATE) -> None:
        self._rate = rate
        self._factors: dict[tuple[str, ...], dict[str, list[float]]] = {}

    def observe(self, measured: Measured) -> None:
        """Adds a measurement."""
        guess = self._guess(measured.work) * measured.epochs
        if measured.seconds <= 0 or guess <= 0:
            return
        by_machine = self._factors.setdefault(_key(measured.work), {})
        if not measured.machine.startswith(ASSUMED):
            by_machine.pop(ASSUMED, None)
            by_machine.pop(ASSUMED + measured.machine, None)
        known = by_machine.setdefault(measured.machine, [])
        known.append(measured.seconds / guess)
        del known[:-_REMEMBERED]

    def epoch(self, work: Work, *, slowest: bool = False) -> float:
        """Returns the seconds of an epoch.

        Args:
            work: Work of the stage.
            slowest: Whether on the slowest machine, not on the average one.
        """
        return self._guess(work) * self._factor(work, slowest)

    def once(self, work: Work, *, slowest: bool = False) -> float:
        """Returns the seconds of what a stage does before its first epoch, see `epoch`."""
        guess = work.once / self._rate + work.once_steps * _GUESSED_STEP
        return guess * self._factor(work, slowest)

    def training(self, stages: Iterable[Work], done: int = 0, *, slowest: bool = False) -> float:
        """Returns the seconds of a training on one slot.

        Args:
            stages: Stages of the training, in order.
            done: Epochs that are trained already, over all stages.
            slowest: Whether on the slowest machine, not on the average one.
        """
        seconds = 0.0 if done else _START_SECONDS
        for work in stages:
            left = max(0, work.epochs - done)
            done = max(0, done - work.epochs)
            seconds += left * self.epoch(work, slowest=slowest)
            if left == work.epochs:
                seconds += self.once(work, slowest=slowest)
        return seconds

    def until(self, stages: Sequence[Work], seconds: float) -> int:
        """Returns the epochs that a training does in some seconds: at least 1, at most all."""
        total, spent = 0, _START_SECONDS
        for work in stages:
            each = self.epoch(work)
            spent += self.once(work)
            fitting = int((seconds - spent) / each + 1e-9) if each else work.epochs
            taken = min(work.epochs, max(0, fitting))
            total += taken
            spent += taken * each
            if taken < work.epochs:
                break
        return max(1, total)

    def known(self, work: Work) -> bool:
        """Returns whether this kind of work was measured."""
        return _key(work) in self._factors

    def _guess(self, work: Work) -> float:
        return work.operations / self._rate + work.steps * _GUESSED_STEP

    def _factor(self, work: Work, slowest: bool = False) -> float:
        found = self._factors.get(_key(work))
        if found is None:
            alike = [each for key, each in self._factors.items() if key[0] == work.stage]
            if not alike:
                return 1.0
            return statistics.median(_of_machines(each, slowest) for each in alike)
        return _of_machines(found, slowest)


def _key(work: Work) -> tuple[str, ...]:
    return (work.stage, *work.kind)


def _of_machines(by_machine: dict[str, list[float]], slowest: bool) -> float:
    medians = [statistics.median(values) for values in by_machine.values()]
    return max(medians) if slowest else statistics.fmean(medians)
