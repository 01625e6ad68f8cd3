"""A comparison of runs in a terminal and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.report.comparison import comparison_page
from gsfl_tune.report.results import begun
from gsfl_tune.report.trials import Curve
from gsfl_tune.run import write_text
from gsfl_tune.runs.comparison import ABSENT, Comparison
from gsfl_tune.runs.tables import STYLES, console_of_tables, table_of

_BARS = "▁▂▃▄▅▆▇█"
# Characters of a curve: it stays beside a name and two values at 80 columns.
_WIDTH = 32


def write_page(comparison: Comparison, target: Path) -> Path:
    """Writes the comparison as one HTML file.

    Raises:
        OSError: If the file cannot be written.
    """
    page = comparison_page(comparison.to_json(), [run.curve for run in comparison.runs])
    write_text(target, page)
    return target


def print_comparison(comparison: Comparison) -> None:
    """Prints the winners' difference first, then runs, curves and settings that differ."""
    console = console_of_tables()
    for pair in comparison.pairs:
        console.print(Text(pair.sentence, style="bold" if pair.difference else ""))
    _print_runs(comparison, console)
    _print_curves(comparison, console)
    _print_settings(comparison, console, "Configurations of the winners that differ", "winners")
    _print_settings(comparison, console, "Experiment files that differ", "experiments")


def _print_runs(comparison: Comparison, console: Console) -> None:
    table = table_of(
        "run", "state", "trials", "trial", "best", "test",
        right=("trials", "trial", "best", "test"), fold=("run",),
    )  # fmt: skip
    for run in comparison.runs:
        metric = metric_of(run.files.results.metric)
        best = metric.text(run.best)
        winner = run.winner
        table.add_row(
            Text(run.name),
            Text(run.state, STYLES[run.state]),
            str(begun(run.files.results.counts)),
            ABSENT if run.trial is None else str(run.trial),
            Text(best if comparison.same_metric or run.best is None else f"{best} {metric.name}"),
            ABSENT if winner is None else f"{100 * winner.test['accuracy'].mean:.1f} %",
        )
    console.print(table)


def _print_curves(comparison: Comparison, console: Console) -> None:
    every = [value for run in comparison.runs for value in run.curve.values if value is not None]
    if not every:
        return
    metric = metric_of(comparison.metric)
    console.print(
        Text(f"Learning curves of the winners, {comparison.metric}, on one scale", "bold")
    )
    table = table_of("run", "curve", "epochs", "first", "last", right=("epochs", "first", "last"))
    for column in table.columns[:1]:
        column.no_wrap = False
    for run in comparison.runs:
        known = [value for value in run.curve.values if value is not None]
        if known:
            table.add_row(
                Text(run.name),
                bars(run.curve, min(every), max(every)),
                str(len(run.curve.values)),
                metric.text(known[0]),
                metric.text(known[-1]),
            )
    console.print(table)


def bars(curve: Curve, low: float, high: float, width: int = _WIDTH) -> str:
    """Draws a curve as a line of bars.

    Args:
        curve: The curve.
        low: Value of the lowest bar.
        high: Value of the highest bar.
        width: Most characters; longer curves show the last value of each stretch.
    """
    values = curve.values
    count = min(width, len(values))
    drawn = []
    for place in range(count):
        value = values[(place + 1) * len(values) // count - 1]
        if value is None:
            drawn.append(" ")
            continue
        share = (value - low) / (high - low) if high > low else 0.5
        drawn.append(_BARS[min(len(_BARS) - 1, int(share * len(_BARS)))])
    return "".join(drawn)


def _print_settings(comparison: Comparison, console: Console, title: str, which: str) -> None:
    rows: Sequence[tuple[str, list[str]]] = getattr(comparison, which)
    console.print(Text(title, "bold"))
    if not rows:
        console.print("none\n")
        return
    names = [run.name for run in comparison.runs]
    table = table_of("key", *names, fold=("key", *names))
    for path, values in rows:
        table.add_row(Text(path), *(Text(value) for value in values))
    console.print(table)
