"""The clock of a search: seconds while a driver worked on it, with the pauses between drivers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from gsfl_tune.report.trials import TrialRecord

# In a run of a version that did not write down its drivers: nothing under way for so long.
_PAUSE = 300.0


class SearchClock:
    """Counts from the first trial, and stands still while no driver worked on the run.

    Args:
        trials: All trials of the run; one of them has begun.
        drivers: ``drivers`` of ``run.json``: ``begin`` and ``end``, seconds since 1970.
        stretches: See `gsfl_tune.run.workers.WorkerLog`; they tell of drivers that ``run.json``
            does not know.

    Attributes:
        seconds: Up to the last trial that ended.
        pauses: Where the run was interrupted, seconds of this clock, and for how many seconds.
    """

    def __init__(
        self,
        trials: Sequence[TrialRecord],
        drivers: Iterable[Mapping[str, Any]] = (),
        stretches: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        spans = sorted(
            (t.begin, t.end if t.end is not None else t.begin)
            for t in trials
            if t.begin is not None
        )
        self._start = spans[0][0]
        last = max(end for _, end in spans)
        heard = [end for _, end in spans] + [float(each["end"]) for each in stretches]
        sessions = _sessions(drivers, stretches)
        self._gaps = list(_gaps(sessions, heard) if sessions else _holes(spans))
        self._gaps = [
            (max(end, self._start), begin)
            for end, begin in self._gaps
            if self._start < begin <= last
        ]
        self.seconds = self.at(last)
        self.pauses = [(self.at(end), round(begin - end, 1)) for end, begin in self._gaps]

    def at(self, instant: float | None) -> float:
        """Seconds from the beginning; None is the beginning."""
        instant = self._start if instant is None else instant
        lost = sum(max(0.0, min(instant, begin) - end) for end, begin in self._gaps)
        return round(max(0.0, instant - self._start - lost), 1)


def _sessions(
    drivers: Iterable[Mapping[str, Any]], stretches: Iterable[Mapping[str, Any]]
) -> list[tuple[float, float]]:
    """When each driver began and was last heard of, oldest first."""
    known = sorted(
        (float(each["begin"]), float(each["end"]))
        for each in drivers
        if isinstance(each.get("begin"), int | float) and isinstance(each.get("end"), int | float)
    )
    by_number: dict[int, tuple[float, float]] = {}
    for each in stretches:
        number = each.get("session")
        if isinstance(number, int):
            begin, end = float(each["begin"]), float(each["end"])
            before = by_number.get(number, (begin, end))
            by_number[number] = min(begin, before[0]), max(end, before[1])
    # Those of a version that wrote no drivers, before one that does went on.
    earlier = [span for span in by_number.values() if not known or span[1] < known[0][0]]
    return sorted(earlier) + known


def _gaps(
    sessions: Sequence[tuple[float, float]], heard: Iterable[float]
) -> Iterable[tuple[float, float]]:
    """From the last sign of each driver to the beginning of the next."""
    signs = sorted(heard)
    for (begin, end), (following, _) in pairwise(sessions):
        # A driver that was killed did not write its end down.
        end = max([end, *(sign for sign in signs if begin <= sign < following)])
        if following > end:
            yield end, following


def _holes(spans: Sequence[tuple[float, float]]) -> Iterable[tuple[float, float]]:
    """Where no trial was under way for long."""
    until = spans[0][0]
    for begin, end in spans:
        if begin - until > _PAUSE:
            yield until, begin
        until = max(until, end)
