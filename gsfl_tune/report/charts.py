"""The JSON that the page's script draws: trials, slot timeline and the winner's evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gsfl_tune.experiment import Categorical, Parameter
from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.report import model
from gsfl_tune.report.answer import models_chart
from gsfl_tune.report.clock import SearchClock
from gsfl_tune.report.files import CONTROL, SEARCH, RunFiles
from gsfl_tune.report.importance import Importances, importances
from gsfl_tune.report.rungs import Rung, pretraining_rungs, rung_epochs, rungs
from gsfl_tune.report.slots import Timeline, timeline
from gsfl_tune.report.training import TrainingCurves
from gsfl_tune.report.trials import TrialRecord, best_so_far
from gsfl_tune.run.manifest import SPACE_CHANGED

_FIRST = (
    "model.groups.count",
    "model.groups.method",
    "loss.reconstruction",
    "loss.class_center",
    "loss.shared_center",
    "loss.center_rate",
)


class SearchCharts:
    """Collects the data of the search's charts; the page's text uses the same data.

    Args:
        files: The run.

    Attributes:
        trials: The trials of the search.
        rungs: The rungs of the search.
        importances: Title and importances, where there are enough trials.
        timeline: Work of every slot over time; None if unknown.
        axes: Parameters of the search, those of the method itself first.
        searched: Whether the space has parameters.
        pareto: Configurations that no other beats, if there were several objectives.
    """

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        self.metric = files.results.metric
        self.maximize = metric_of(self.metric).sign > 0
        self.trials = files.study(SEARCH)
        self.rival_trials = files.study(CONTROL)
        self.rungs: list[Rung] = rungs(
            self.trials,
            rung_epochs(files.stretches, files.manifest.get(SPACE_CHANGED)),
            maximize=self.maximize,
        )
        self.pretraining: list[Rung] = pretraining_rungs(self.trials)
        self.importances: list[tuple[str, Importances]] = list(self._importances())
        self.timeline: Timeline | None = timeline(files.stretches, files.trials)
        self.axes = self._axes()
        self.pareto = _pareto(files, self.trials)
        self.searched = files.experiment is None or len(files.experiment.space) > 0

    def _importances(self) -> Any:
        wanted: list[tuple[str, int | None]] = [("at the end, of finished trials", None)]
        if len(self.rungs) > 1:
            wanted.insert(0, (f"at the first rung ({self.rungs[0].label}), of all trials", 0))
        for title, rung in wanted:
            found = importances(self.trials, rung)
            if found is not None:
                yield title, found

    def _axes(self) -> list[dict[str, Any]]:
        known: dict[str, Parameter] = {}
        if self._files.experiment is not None:
            known = {each.name: each for each in self._files.experiment.space.parameters}
        names = dict.fromkeys(name for trial in self.trials for name in trial.params)
        # The order of the experiment if it is known; parameters that it lacks come last.
        order = [*(n for n in _FIRST if n in names), *(n for n in known if n in names), *names]
        return [_axis(name, known.get(name), self.trials) for name in dict.fromkeys(order)]

    def to_json(self) -> dict[str, Any]:
        """Returns the data of the search for the script."""
        return {
            "metric": self.metric,
            "maximize": self.maximize,
            "percent": metric_of(self.metric).is_share,
            "axes": self.axes,
            "rungs": [{"label": rung.label, "n": rung.reached} for rung in self.rungs],
            "trials": [self._trial(trial) for trial in self.trials],
            "best": self._best(),
            "importances": [
                {
                    "title": title,
                    "shares": [[name, _short(share)] for name, share in found.shares],
                    "strength": found.strength,
                    "verdict": found.verdict,
                }
                for title, found in self.importances
            ],
            "timeline": self._timeline(),
            "pareto": self.pareto,
        }

    def _trial(self, trial: TrialRecord) -> dict[str, Any]:
        kept = self._rung_epochs(trial)
        points = trial.curve.thinned(kept)
        whole = [epoch for epoch, _ in points] == list(range(1, len(points) + 1))
        row: dict[str, Any] = {
            "n": trial.number,
            "s": trial.state,
            "v": _short(trial.last),
            "p": [_place(trial.params.get(axis["name"]), axis) for axis in self.axes],
            "r": [_short(trial.rungs.get(rung.index)) for rung in self.rungs],
            "c": [_short(value) for _, value in points],
            "e": trial.epochs,
            "h": trial.curve.before,
        }
        if trial.latency is not None:
            row["l"] = _short(trial.latency)
            if trial.doubt:
                row["u"] = trial.doubt
        if not whole:
            row["x"] = [epoch for epoch, _ in points]
        if trial.reason:
            row["why"] = trial.reason[:200]
        if trial.origin:
            row["o"] = trial.origin
        return row

    def _rung_epochs(self, trial: TrialRecord) -> list[int]:
        return list(rung_epochs(self._files.stretches).values()) if len(trial.curve.values) else []

    def _best(self) -> dict[str, Any]:
        begins = [t.begin for t in self._files.trials if t.begin is not None]
        if not begins:
            return {"lines": [], "dots": [], "seconds": 0, "pauses": []}
        drivers = self._files.manifest.get("drivers")
        clock = SearchClock(
            self._files.trials,
            [each for each in drivers if isinstance(each, dict)]
            if isinstance(drivers, list)
            else [],
            self._files.stretches,
        )
        lines = []
        for name, trials in (("search", self.trials), ("control", self.rival_trials)):
            steps = best_so_far(trials, maximize=self.maximize)
            if steps:
                last = max(t.end for t in trials if t.end is not None)
                lines.append(
                    {
                        "name": name,
                        "steps": [[clock.at(e), _short(v), t.number] for e, v, t in steps],
                        "end": clock.at(last),
                    }
                )
        dots = [
            [clock.at(t.end), _short(t.last), t.number, t.state, t.study == CONTROL]
            for t in self._files.trials
            if t.end is not None and t.last is not None
        ]
        return {"lines": lines, "dots": dots, "seconds": clock.seconds, "pauses": clock.pauses}

    def _timeline(self) -> dict[str, Any] | None:
        found = self.timeline
        if found is None:
            return None
        return {
            "seconds": round(found.seconds, 1),
            "pauses": [[round(at, 1), round(length)] for at, length in found.pauses],
            "lanes": [
                {
                    "node": lane.node,
                    "bars": [
                        [round(bar.begin, 2), round(bar.end, 2), bar.kind, bar.name, bar.worker]
                        for bar in lane.bars
                    ],
                }
                for lane in found.lanes
            ],
        }


def page_data(
    files: RunFiles, search: SearchCharts, training: TrainingCurves | None
) -> dict[str, Any]:
    """Returns everything that the script needs."""
    results = files.results.results
    probes, _ = files.part("probes")
    swap, _ = files.part("swap")
    calibration, _ = files.part("calibration")
    return {
        "search": search.to_json(),
        "training": None if training is None else training.to_json(),
        "models": models_chart(results) if results else None,
        "classes": model.class_names(files),
        "groups": [model.groups_of(files).get(name) for name in model.class_names(files)],
        "accuracy": [
            [row.name, _short(row.accuracy), row.worst, row.group]
            for row in model.class_rows(files)
            if row.accuracy is not None
        ],
        "confusion": model.confusion_chart(files),
        "confusion_groups": model.group_confusion_chart(files),
        "calibration": calibration,
        "map": model.map_chart(files),
        "probes": probes,
        "swap": swap,
    }


def _axis(name: str, parameter: Parameter | None, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    values = [trial.params[name] for trial in trials if name in trial.params]
    axis: dict[str, Any] = {"name": name}
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    drawn = None if parameter is None else parameter.distribution
    if isinstance(drawn, Categorical):
        axis["choices"] = list(dict.fromkeys(map(_word, [*drawn.choices, *values])))
    elif drawn is not None:
        axis |= {"low": drawn.low, "high": drawn.high, "log": drawn.log}
    elif len(numbers) < len(values):
        axis["choices"] = sorted({_word(value) for value in values})
    else:
        low, high = min(numbers), max(numbers)
        axis |= {"low": low, "high": high, "log": low > 0 and high / low > 100}
    return axis


def _place(value: Any, axis: dict[str, Any]) -> float | None:
    """Returns the index of a choice or the value of a number; None if it was not active."""
    if value is None:
        return None
    return axis["choices"].index(_word(value)) if "choices" in axis else _short(value)


def _word(choice: Any) -> str:
    """Returns a choice as text; Parquet does not distinguish 1.0 from 1."""
    return f"{choice:g}" if isinstance(choice, float) else str(choice)


def _pareto(files: RunFiles, trials: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """Returns the front of the results, or that of the trials while there are no results."""
    points = files.content.get("pareto")
    if isinstance(points, list):
        return [dict(point) for point in points]
    able = [t for t in trials if t.feasible]
    known = [(t.latency, -t.value, t) for t in able if t.latency and t.value is not None]
    front: list[dict[str, Any]] = []
    for latency, worse, trial in sorted(known, key=lambda each: (*each[:2], each[2].number)):
        if not front or -worse > front[-1]["accuracy"]:
            point = {"trial": trial.number, "accuracy": -worse, "latency_ms": latency}
            front.append(point | {"latency_reliable": trial.reliable})
    return front


def _short(value: Any) -> float | None:
    """Rounds to five significant digits, which is enough for a screen."""
    if value is None or not math.isfinite(value):
        return None
    number = float(f"{value:.5g}")
    return int(number) if number.is_integer() and abs(number) < 1e6 else number
