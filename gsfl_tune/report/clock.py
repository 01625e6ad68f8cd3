"""The clock of a search: it counts the seconds in which a driver ran, and lists the pauses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil, floor, inf
from typing import Any

from gsfl_tune.report.trials import TrialRecord

# Seconds without a trial that count as a pause, for versions that did not record drivers.
_PAUSE = 300.0
# Seconds that all differences of time zones are multiples of.
_ZONE = 900.0
# Clocks of machines differ, and work is written down a little after its end.
_SLACK = 60.0


def in_this_zone(
    trials: Sequence[TrialRecord],
    drivers: Sequence[Mapping[str, Any]],
    stretches: Iterable[Mapping[str, Any]],
) -> list[TrialRecord]:
    """Moves trials to the times at which drivers and workers were there.

    The table of trials has the local time of the machine that searched, but not its zone. Those of
    drivers and workers are seconds since 1970.

    Args:
        trials: All trials of a run, read as if the table had the local time of this machine.
        drivers: See `SearchClock`.
        stretches: See `SearchClock`.
    """
    begun = {(t.study, t.number): t.begin for t in trials if t.begin is not None}
    ended = {(t.study, t.number): t.end for t in trials if t.end is not None}
    # A trial has its work within its own times, and these within those of the drivers.
    least, most = -inf, inf
    for each in stretches:
        key = str(each.get("study")), each.get("trial", -1)
        most = min(most, float(each["begin"]) - begun.get(key, -inf))
        least = max(least, float(each["end"]) - ended.get(key, inf))
    sessions = _sessions(drivers, ())
    if sessions and begun:
        least = max(least, sessions[0][0] - min(begun.values()))
    # Of a driver that was killed the end is not known.
    if sessions and ended and "ending" in drivers[-1]:
        most = min(most, sessions[-1][1] - max(ended.values()))
    least, most = least - _SLACK, most + _SLACK
    zone = 0.0
    if least > 0:
        zone = _ZONE * ceil(least / _ZONE)
    elif most < 0:
        zone = _ZONE * floor(most / _ZONE)
    if zone == 0 or not least <= zone <= most:
        return list(trials)
    return [replace(t, begin=_plus(t.begin, zone), end=_plus(t.end, zone)) for t in trials]


def _plus(instant: float | None, seconds: float) -> float | None:
    return None if instant is None else instant + seconds


class SearchClock:
    """Counts from the first trial and stops while no driver works on the run.

    Args:
        trials: All trials of the run; one of them has begun.
        drivers: ``drivers`` of ``run.json``: ``begin`` and ``end``, seconds since 1970.
        stretches: See `gsfl_tune.run.workers.WorkerLog`; they include drivers that are missing
            from ``run.json``.

    Attributes:
        seconds: Up to the last trial that ended.
        pauses: When the run was interrupted (seconds of this clock), and for how many seconds.
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
        """Returns the seconds from the beginning; None means the beginning."""
        instant = self._start if instant is None else instant
        lost = sum(max(0.0, min(instant, begin) - end) for end, begin in self._gaps)
        return round(max(0.0, instant - self._start - lost), 1)


def _sessions(
    drivers: Iterable[Mapping[str, Any]], stretches: Iterable[Mapping[str, Any]]
) -> list[tuple[float, float]]:
    """Returns the begin and the last sign of life of each driver, oldest first."""
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
    # Drivers of a version that did not record them, before a newer version resumed the run.
    earlier = [span for span in by_number.values() if not known or span[1] < known[0][0]]
    return sorted(earlier) + known


def _gaps(
    sessions: Sequence[tuple[float, float]], heard: Iterable[float]
) -> Iterable[tuple[float, float]]:
    """Returns the gaps from the last sign of each driver to the beginning of the next."""
    signs = sorted(heard)
    for (begin, end), (following, _) in pairwise(sessions):
        # A driver that was killed did not record its end.
        end = max([end, *(sign for sign in signs if begin <= sign < following)])
        if following > end:
            yield end, following


def _holes(spans: Sequence[tuple[float, float]]) -> Iterable[tuple[float, float]]:
    """Returns the long stretches without a running trial."""
    until = spans[0][0]
    for begin, end in spans:
        if begin - until > _PAUSE:
            yield until, begin
        until = max(until, end)
