"""``gsfl-tune check``: all problems of an experiment file, or its parameters and its price."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gsfl_tune.cli._base import FINISHED, Command, add_experiment_arguments
from gsfl_tune.cli._estimate import add_estimate_arguments
from gsfl_tune.cli._kept_answer import KeptAnswer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# From this width on, long names are not folded.
_WIDE = 120


class Check(Command):
    """Checks an experiment without reading images or training anything."""

    name = "check"
    help = "check an experiment file; show its parameters and what the search costs at most"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        add_experiment_arguments(parser)
        add_estimate_arguments(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> int:
        """Prints the parameters and the price.

        Raises:
            ExperimentError: With every problem of the file.
        """
        kept = KeptAnswer(args)
        answer = kept.read()
        if answer is None:
            from gsfl_tune.cli._check_answer import answer_of

            experiment, answer = answer_of(args)
            kept.write(experiment, answer)
        if args.json:
            print(json.dumps(answer, indent=2, ensure_ascii=False))
        else:
            _print(answer)
        return FINISHED


def _print(answer: Mapping[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    console.print(f"{answer['file']}: valid, experiment {answer['name']}", soft_wrap=True)
    if answer["parameters"]:
        console.print(parameter_table(answer["parameters"], console))
    else:
        console.print("No leaf is a distribution: there is nothing to search.")
    for line in answer["data"]:
        console.print(line, soft_wrap=True)
    for warning in answer["warnings"]:
        console.print(f"Warning: {warning}", soft_wrap=True)
    console.print("What the search costs at most:")
    console.print(_grid(answer["cost"]))
    for note in answer["notes"]:
        console.print(f"Note: {note}")
    if answer["estimate"] is not None:
        console.print("What it is expected to take:")
        console.print(_grid(answer["estimate"]))


def parameter_table(parameters: Sequence[Sequence[str]], console: Console) -> Table:
    """Tabulates name, distribution, default and condition of every parameter."""
    from rich import box
    from rich.table import Table

    width = 200 if console.width >= _WIDE else 22
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("name", no_wrap=True)
    for heading in ("distribution", "default", "condition"):
        table.add_column(heading, overflow="fold")
    for name, distribution, default, condition in parameters:
        table.add_row(fold(name, width), distribution, default, fold(condition, width))
    return table


def fold(text: str, width: int) -> str:
    """Breaks dotted paths that are longer than ``width`` after a dot, indented from there on."""
    words = []
    for word in text.split(" "):
        lines = [""]
        for index, part in enumerate(word.split(".")):
            piece = part if index == 0 else f".{part}"
            # A dot between digits belongs to a number.
            if lines[-1] and len(lines[-1]) + len(piece) > width and not part[:1].isdigit():
                lines[-1] += "."
                lines.append(f"  {part}")
            else:
                lines[-1] += piece
        words.append("\n".join(lines))
    return " ".join(words)


def _grid(rows: Mapping[str, str]) -> Table:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for heading, text in rows.items():
        grid.add_row(f"  {heading}", text)
    return grid
