"""Figures of a run for a notebook, drawn with Matplotlib."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.report import model
from gsfl_tune.report.charts import SearchCharts
from gsfl_tune.report.files import SEARCH, RunFiles
from gsfl_tune.report.importance import FEWEST, importances
from gsfl_tune.report.training import training_curves
from gsfl_tune.report.trials import TrialRecord

# The colours of the report, which people with a colour vision deficiency can tell apart.
COLOURS = {"COMPLETE": "#0072b2", "PRUNED": "#8b95a1", "FAIL": "#d55e00", "RUNNING": "#008a65"}
NAMES = {"COMPLETE": "finished", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "running"}
_MARKS = {"COMPLETE": "o", "PRUNED": "s", "FAIL": "x", "RUNNING": "D"}
_MOST_NAMED = 40


class Plot(Figure):
    """Draws in a notebook, where it is shown once, without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=self.dpi)
        return buffer.getvalue()

    def __repr__(self) -> str:
        width, height = self.get_size_inches()
        return f"Plot({width:g} x {height:g} inches)"


def curves(files: RunFiles, numbers: Collection[int] | None, size: tuple[float, float]) -> Plot:
    """Draws the metric by epoch, a line for each trial.

    Args:
        files: The run.
        numbers: The trials; None for all.
        size: Width and height in inches.

    Raises:
        UserError: If there is no such trial, or none has trained an epoch.
    """
    trials = _trials(files, numbers)
    shown = [trial for trial in trials if any(v is not None for v in trial.curve.values)]
    if not shown:
        raise UserError(f"{files.run.path}: no trial has trained an epoch yet")
    figure, axes = _figure(size)
    for trial in sorted(shown, key=lambda each: each.state == "COMPLETE"):
        colour, mark = _look(trial)
        points = [(e, v) for e, v in enumerate(trial.curve.values, 1) if v is not None]
        epochs, values = zip(*points, strict=True)
        axes.plot(epochs, values, color=colour, linewidth=1.4, alpha=0.85)
        axes.plot(epochs[-1], values[-1], mark, color=colour, markersize=5)
        if len(shown) <= 8:
            axes.annotate(f" {trial.number}", (epochs[-1], values[-1]), fontsize=8, va="center")
    _state_legend(axes, shown)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _metric_axis(axes, files.results.metric)
    return figure


def training(files: RunFiles, number: int | None, size: tuple[float, float]) -> Plot:
    """Draws training and validation loss in one plot, and below it the validation accuracy.

    Args:
        files: The run.
        number: The trial; None for the winner, or the best finished trial while there is none.
        size: Width and height in inches.

    Raises:
        UserError: If there is no such trial, or it has trained no epoch.
    """
    if number is not None:
        _trials(files, [number])
    found = training_curves(files, number)
    if found is None:
        which = "no trial has finished yet" if number is None else f"trial {number} has no epochs"
        raise UserError(f"{files.run.path}: {which}, or its epochs.jsonl is not in the directory")
    figure = Plot(figsize=size, dpi=100, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    drawn = [
        ("training loss", found.train, COLOURS["COMPLETE"], "-"),
        ("its cross-entropy alone", found.cross_entropy, COLOURS["COMPLETE"], ":"),
        ("validation loss", found.validation, COLOURS["FAIL"], "--"),
    ]
    mark = "." if len(found.epochs) <= 60 else ""
    for label, values, colour, style in drawn:
        points = [(e, v) for e, v in zip(found.epochs, values, strict=False) if v is not None]
        if points:
            above.plot(*zip(*points, strict=True), style, marker=mark, color=colour, label=label)
    above.legend(frameon=False, fontsize=9)
    above.set_ylabel("loss")
    accuracy = [(e, v) for e, v in zip(found.epochs, found.accuracy, strict=True) if v is not None]
    if accuracy:
        below.plot(*zip(*accuracy, strict=True), "--", marker=mark, color=COLOURS["FAIL"])
    _metric_axis(below, "validation/accuracy")
    below.set_xlabel("epoch")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    above.grid(axis="y", alpha=0.25)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        for first, _ in found.stages[1:]:
            axes.axvline(first - 0.5, color="#8b95a1", linewidth=1, linestyle=":")
    for first, name in found.stages[1:]:
        above.annotate(
            f" {name}", (first - 0.5, 1), xycoords=("data", "axes fraction"), fontsize=8, va="top"
        )
    above.set_title(f"trial {found.trial}", loc="left", fontsize=10)
    return figure


def best(files: RunFiles, size: tuple[float, float]) -> Plot:
    """Draws the best finished trial so far by the time of the search, and every trial's end.

    Raises:
        UserError: If no trial has ended.
    """
    drawn = SearchCharts(files).to_json()["best"]
    if not drawn["dots"]:
        raise UserError(f"{files.run.path}: no trial has ended yet")
    figure, axes = _figure(size)
    for when, value, _, state, rival in drawn["dots"]:
        mark, face = _MARKS.get(state, "^"), COLOURS.get(state, "#5d6773")
        hollow = rival and mark != "x"
        axes.plot(
            when / 60, value, mark, color=face, alpha=0.6, markersize=5,
            markerfacecolor="none" if hollow else face,
        )  # fmt: skip
    for line, style in zip(drawn["lines"], ("-", "--"), strict=False):
        steps = line["steps"]
        times = [when / 60 for when, _, _ in steps] + [line["end"] / 60]
        values = [value for _, value, _ in steps]
        axes.step(
            times, [*values, values[-1]], style, where="post", color="#1b2026",
            label=f"best of the {line['name']}",
        )  # fmt: skip
    if drawn["lines"]:
        axes.legend(frameon=False, fontsize=9)
    axes.set_xlabel("minutes of the search")
    _metric_axis(axes, files.results.metric)
    return figure


def importance(files: RunFiles, rung: int | None, size: tuple[float, float]) -> Plot:
    """Draws how much of the result each parameter explains, and how far that can be trusted.

    Args:
        files: The run.
        rung: Explain the value at this rung; None for that of finished trials.
        size: Width and height in inches.

    Raises:
        UserError: If there are too few trials to explain.
    """
    found = importances(files.study(SEARCH), rung)
    if found is None:
        raise UserError(
            f"{files.run.path}: found fewer than {FEWEST} trials with a value, or equal values; "
            f"allowed from {FEWEST} trials on, as a forest would explain noise"
        )
    figure, axes = _figure(size)
    names = [name for name, _ in found.shares][::-1]
    shares = [max(0.0, share) for _, share in found.shares][::-1]
    axes.barh(names, shares, color=COLOURS["COMPLETE"], alpha=found.strength)
    for place, share in enumerate(shares):
        axes.annotate(f" {share:.2f}", (share, place), va="center", fontsize=9)
    axes.set_xlabel("loss of R² when it is shuffled")
    axes.set_title(
        f"{found.trials} trials, out-of-bag R² {found.explained:.2f}: {found.verdict}", fontsize=10
    )
    axes.margins(x=0.12)
    return figure


def parameter(files: RunFiles, name: str, size: tuple[float, float]) -> Plot:
    """Draws the last value of every trial against one parameter.

    Args:
        files: The run.
        name: Name of the parameter.
        size: Width and height in inches.

    Raises:
        UserError: If no trial has such a parameter.
    """
    charts = SearchCharts(files)
    axis = next((each for each in charts.axes if each["name"] == name), None)
    if axis is None:
        known = ", ".join(each["name"] for each in charts.axes) or "none: nothing was searched"
        raise UserError(f"found {name!r}, allowed a parameter of the search: {known}")
    shown = [t for t in charts.trials if name in t.params]
    figure, axes = _figure(size)
    choices = axis.get("choices")
    for trial in shown:
        if trial.last is None:
            continue
        colour, mark = _look(trial)
        value: Any = trial.params[name]
        if choices:
            word = f"{value:g}" if isinstance(value, float) else str(value)
            value = choices.index(word)
        face = colour if trial.state == "COMPLETE" else "none"
        axes.plot(value, trial.last, mark, color=colour, markerfacecolor=face, alpha=0.85)
    if choices:
        axes.set_xticks(range(len(choices)), choices)
        axes.margins(x=0.2)
    elif axis.get("log"):
        axes.set_xscale("log")
    _state_legend(axes, shown)
    axes.set_xlabel(name)
    _metric_axis(axes, files.results.metric)
    return figure


def confusion(files: RunFiles, size: tuple[float, float]) -> Plot:
    """Draws the confusion matrix of the winner: rows are true classes, each sums to 1.

    Raises:
        UserError: If the run has no evidence of it.
    """
    chart = model.confusion_chart(files)
    if chart is None:
        _, why = files.part("confusion")
        raise UserError(f"{files.run.path}: {why or 'found no confusion matrix in evidence.json'}")
    labels: Sequence[str] = chart["labels"]
    matrix = np.zeros((len(labels), len(labels)))
    for row, column, count in chart["cells"]:
        matrix[row, column] = count
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure, axes = _figure(size)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    if len(labels) <= _MOST_NAMED:
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
        axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    return figure


def _trials(files: RunFiles, numbers: Collection[int] | None) -> list[TrialRecord]:
    trials = files.study(SEARCH)
    if numbers is None:
        return trials
    known = {trial.number for trial in trials}
    missing = [number for number in numbers if number not in known]
    if missing:
        span = f"0 to {max(known)}" if known else "none: no trial has begun"
        raise UserError(f"found trial {missing[0]}, allowed {span}")
    return [trial for trial in trials if trial.number in set(numbers)]


def _figure(size: tuple[float, float]) -> tuple[Plot, Axes]:
    figure = Plot(figsize=size, dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _look(trial: TrialRecord) -> tuple[str, str]:
    return COLOURS.get(trial.state, "#5d6773"), _MARKS.get(trial.state, "^")


def _state_legend(axes: Axes, trials: Sequence[TrialRecord]) -> None:
    for state in dict.fromkeys(trial.state for trial in trials):
        count = sum(trial.state == state for trial in trials)
        axes.plot(
            [], [], _MARKS.get(state, "^"), color=COLOURS.get(state, "#5d6773"),
            label=f"{NAMES.get(state, state.lower())} ({count})",
        )  # fmt: skip
    axes.legend(frameon=False, fontsize=9)


def _metric_axis(axes: Axes, metric: str) -> None:
    axes.set_ylabel(metric)
    if metric_of(metric).is_share:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.grid(axis="y", alpha=0.25)
