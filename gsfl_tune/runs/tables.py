"""Runs and what may be removed of them, as tables for a terminal or a pipe."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gsfl_tune.activity import duration
from gsfl_tune.experiment.units import decimal_size
from gsfl_tune.report.results import begun
from gsfl_tune.runs.cleaning import RETRAINED, Cleaning, Removable
from gsfl_tune.runs.listing import RunSummary

STYLES = {"running": "cyan", "finished": "green", "failed": "bold red", "interrupted": "yellow"}
# Nobody reads a pipe at 80 columns: a run is one line, which grep and awk can take.
_WIDE = 1000


def console_of_tables() -> Console:
    """Returns a console for tables: as wide as the terminal, unlimited in a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def table_of(*columns: str, right: Sequence[str] = (), fold: Sequence[str] = ()) -> Table:
    """Returns an empty table in the style of all commands.

    Args:
        columns: Headings.
        right: Those of numbers.
        fold: Those of columns that may take several lines; the others keep theirs.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for name in columns:
        table.add_column(
            # Names of runs are headings too, and may contain brackets.
            Text(name),
            justify="right" if name in right else "left",
            no_wrap=name not in fold,
            overflow="fold",
        )
    return table


def print_runs(runs: Sequence[RunSummary], folder: Path) -> None:
    """Prints a line for each run, then the reasons of failures and what could not be read.

    Args:
        runs: The runs.
        folder: The folder that was searched.
    """
    console = console_of_tables()
    if not runs:
        console.print(f"{folder}: no runs", markup=False, soft_wrap=True)
        return
    table = table_of(
        "run", "state", "trials", "best", "test", "size", "last",
        right=("trials", "best", "test", "size"), fold=("run",),
    )  # fmt: skip
    for run in runs:
        table.add_row(
            Text(_place(run.path, folder)),
            Text(_state(run), STYLES[run.state.name]),
            _trials(run),
            Text(run.best_text),
            "–" if run.test is None else f"{100 * run.test:.1f} %",
            decimal_size(run.size),
            "–" if run.last is None else f"{datetime.fromtimestamp(run.last):%Y-%m-%d %H:%M}",
        )
    console.print(table)
    for run in runs:
        for said in filter(None, (run.state.reason, run.problem)):
            console.print(f"{_place(run.path, folder)}: {said}", markup=False, soft_wrap=True)
    total = decimal_size(sum(run.size for run in runs))
    plural = "s" if len(runs) > 1 else ""
    console.print(f"{len(runs)} run{plural}, {total} in {folder}", markup=False, soft_wrap=True)


def print_cleaning(plan: Cleaning, given: Path, *, removed: bool, retrained: bool) -> None:
    """Prints what would be, or was, removed of a run, and which checkpoints stay and why.

    Args:
        plan: The files.
        given: The run as the user named it.
        removed: Whether the files are gone.
        retrained: Whether retrained models were asked for too.
    """
    console = Console(highlight=False, markup=False)
    console.print(f"{given}: {plan.state}, {decimal_size(plan.size)}", soft_wrap=True)
    for verb, files in (
        ("removed" if removed else "would remove", plan.remove),
        ("keeps", plan.keep),
    ):
        for why, (count, size) in _kinds(files).items():
            console.print(f"  {verb} {decimal_size(size)}: {count} {why}", soft_wrap=True)
    if not retrained and any(each.why == RETRAINED for each in plan.keep):
        console.print(
            "  (--retrained removes these too: best/ keeps the first; `export --ensemble` and the "
            "evidence of all seeds need the others)",
            soft_wrap=True,
        )
    if not plan.remove:
        console.print("  nothing to remove")
    elif removed:
        console.print(f"  freed {decimal_size(plan.freed)}")
    else:
        words = ["gsfl-tune", "clean", str(given), *(["--retrained"] if retrained else []), "--yes"]
        console.print(
            f"  frees {decimal_size(plan.freed)}; nothing is removed yet: {shlex.join(words)}",
            soft_wrap=True,
        )


def _kinds(files: Sequence[Removable]) -> dict[str, tuple[int, int]]:
    """Returns number and bytes of the files by what they are, the largest first."""
    found: dict[str, tuple[int, int]] = {}
    for each in files:
        count, size = found.get(each.why, (0, 0))
        found[each.why] = count + 1, size + each.size
    return dict(sorted(found.items(), key=lambda item: -item[1][1]))


def _state(run: RunSummary) -> str:
    if run.left is None or run.state.name != "running":
        return run.state.name
    return f"{run.state.name}, {duration(run.left)} left"


def _trials(run: RunSummary) -> str:
    count = begun(run.trials)
    if run.state.name == "finished" or run.planned is None or count >= run.planned:
        return str(count)
    return f"{count} of {run.planned}"


def _place(path: Path, folder: Path) -> str:
    try:
        found = str(path.relative_to(folder))
    except ValueError:
        return str(path)
    return str(path) if found == "." else found
