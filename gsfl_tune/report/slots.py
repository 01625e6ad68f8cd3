"""The slot timeline: stretches of work in lanes, one lane per concurrent trial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gsfl_tune.report.trials import TrialRecord

# Stretches are timed when they are reported, a little after their end.
_TOLERANCE = 1.0
_NEARLY = 0.02
# Interruptions of a run that last longer (seconds) are cut out.
PAUSE = 60.0
_MOST_LANES = 128


@dataclass
class Bar:
    """Holds one stretch of one worker, from `begin` to `end` in seconds of the chart's axis."""

    begin: float
    end: float
    name: str
    kind: str  # "search", "control" or "retrain"
    trial: int | None
    node: str
    worker: str
    session: int | None = None  # number of the driver, if known


@dataclass
class Lane:
    """Holds the work of one slot."""

    node: str
    bars: list[Bar] = field(default_factory=list)


@dataclass(frozen=True)
class Timeline:
    """Holds all lanes on one axis.

    Attributes:
        lanes: At most 128; those of a node are next to each other.
        start: Beginning of the axis, seconds since 1970.
        seconds: Length of the axis, without the pauses.
        pauses: Positions on the axis where time was cut out, and how many seconds.
        left_out: Lanes beyond the 128.
        measured: Whether workers recorded the work; else bars use begin and end of trials.
    """

    lanes: list[Lane]
    start: float
    seconds: float
    pauses: list[tuple[float, float]]
    left_out: int = 0
    measured: bool = True

    @property
    def busy(self) -> float:
        """Returns the share of the lanes' time that has work."""
        offered = self.seconds * len(self.lanes)
        used = sum(bar.end - bar.begin for lane in self.lanes for bar in lane.bars)
        return min(1.0, used / offered) if offered else 0.0

    @property
    def cut(self) -> float:
        """Returns the seconds that were cut out."""
        return sum(seconds for _, seconds in self.pauses)


def timeline(
    stretches: Sequence[Mapping[str, Any]], trials: Sequence[TrialRecord]
) -> Timeline | None:
    """Lays out the work of all workers; None if nothing is known.

    Args:
        stretches: See `gsfl_tune.run.workers.WorkerLog`.
        trials: Used if there are no stretches, as in a run of an older version.
    """
    bars = _merged(_measured(stretches)) or _merged(_begun_and_ended(trials))
    if not bars:
        return None
    start = min(bar.begin for bar in bars)
    pauses = _cut(bars)
    lanes = sorted(_lanes(bars), key=lambda lane: lane.node)
    return Timeline(
        lanes=lanes[:_MOST_LANES],
        start=start,
        seconds=max(bar.end for bar in bars),
        pauses=pauses,
        left_out=max(0, len(lanes) - _MOST_LANES),
        measured=bool(stretches),
    )


def _measured(stretches: Iterable[Mapping[str, Any]]) -> list[Bar]:
    bars = []
    for each in stretches:
        number = each.get("trial")
        kind = "retrain" if "job" in each else str(each.get("study") or "search")
        prefix = "control trial" if kind == "control" else "trial"
        bars.append(
            Bar(
                float(each["begin"]),
                float(each["end"]),
                name=str(each["job"]) if "job" in each else f"{prefix} {number}",
                kind=kind,
                trial=number if isinstance(number, int) else None,
                node=str(each.get("node") or ""),
                worker=str(each.get("worker") or ""),
                session=each.get("session"),
            )
        )
    return bars


def _begun_and_ended(trials: Iterable[TrialRecord]) -> list[Bar]:
    return [
        Bar(t.begin, t.end, f"{t.study} trial {t.number}", t.study, t.number, "", "")
        for t in trials
        if t.begin is not None and t.end is not None and t.end >= t.begin
    ]


def _merged(bars: list[Bar]) -> list[Bar]:
    """Merges consecutive stretches of the same worker and trial."""
    merged: list[Bar] = []
    open_bars: dict[tuple[str, str, str], Bar] = {}
    for bar in sorted(bars, key=lambda each: each.begin):
        key = bar.node, bar.worker, bar.name
        before = open_bars.get(key)
        if before is not None and bar.begin - before.end <= _TOLERANCE:
            before.end = max(before.end, bar.end)
            continue
        open_bars[key] = bar
        merged.append(bar)
    return merged


def _cut(bars: list[Bar]) -> list[tuple[float, float]]:
    """Moves bars onto an axis from 0 without the pauses; returns the pauses.

    While one driver runs, slots without work are idle, however long.
    """
    pauses: list[tuple[float, float]] = []
    shift = until = bars[0].begin
    session = bars[0].session
    for bar in bars:
        resumed = bar.session is None or bar.session != session
        session = bar.session
        if resumed and bar.begin - until > PAUSE:
            pauses.append((until - shift, bar.begin - until))
            shift += bar.begin - until
        until = max(until, bar.end)
        bar.begin, bar.end = bar.begin - shift, bar.end - shift
    return pauses


def _lanes(bars: Iterable[Bar]) -> list[Lane]:
    lanes: list[Lane] = []
    for bar in bars:
        here = [lane for lane in lanes if lane.node == bar.node]
        same = [lane for lane in here if bar.worker and lane.bars[-1].worker == bar.worker]
        same = [lane for lane in same if lane.bars[-1].end <= bar.begin + _TOLERANCE]
        free = [lane for lane in here if lane.bars[-1].end <= bar.begin + _NEARLY]
        # Else take the lane that became free last: this keeps lanes few and gaps real.
        lane = max(same or free, key=lambda each: each.bars[-1].end, default=None)
        if lane is None:
            lane = Lane(bar.node)
            lanes.append(lane)
        elif bar.begin < lane.bars[-1].end:
            bar.begin = min(lane.bars[-1].end, bar.end)
        lane.bars.append(bar)
    return lanes
