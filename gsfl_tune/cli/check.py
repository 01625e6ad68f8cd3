"""``gsfl-tune check``: all problems of an experiment file, or its parameters and its price."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import (
    FINISHED,
    Command,
    add_experiment_arguments,
    load_experiment,
    showing,
)
from gsfl_tune.cli._check_answer import Answer, find_answer
from gsfl_tune.cli._check_data import describe_data, learns_parts
from gsfl_tune.cli._check_memory import remembered
from gsfl_tune.cli._estimate import add_estimate_arguments

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from gsfl_tune.experiment import Experiment, Parameter

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
        known = remembered(args)
        if known.answer is not None and known.experiment is not None:
            _print(args, known.experiment, known.told, known.answer)
            return FINISHED
        with showing("reading the experiment, loading PyTorch", short=True):
            from gsfl_tune.experiment import ExperimentError
            from gsfl_tune.training.fit_precision import refuse_unfit_precision
            from gsfl_tune.training.pricing.problems import cost_problems

            experiment = load_experiment(args)
            problems = cost_problems(experiment)
        if problems:
            raise ExperimentError(problems)
        refuse_unfit_precision(experiment)
        told, images = known.told, known.images
        if known.experiment is None and (not args.json or learns_parts(experiment)):
            described = describe_data(experiment)
            told, images = described.told, described.images
        answer = find_answer(args, experiment, images)
        known.keep(answer)
        _print(args, experiment, told, answer)
        return FINISHED


def _print(
    args: argparse.Namespace, experiment: Experiment, told: list[str], answer: Answer
) -> None:
    """Prints what is known of a valid experiment.

    Args:
        args: The arguments of the command.
        experiment: The experiment.
        told: Lines about its images.
        answer: What it costs.
    """
    if args.json:
        _print_json(experiment, answer)
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    console.print(f"{experiment.file}: valid, experiment {experiment.name}", soft_wrap=True)
    if experiment.space.parameters:
        console.print(parameter_table(experiment, console))
    else:
        console.print("No leaf is a distribution: there is nothing to search.")
    for line in told:
        console.print(line, soft_wrap=True)
    for warning in experiment.warnings:
        console.print(f"Warning: {warning}", soft_wrap=True)
    console.print("What the search costs at most:")
    console.print(_grid(answer.cost))
    for note in answer.notes:
        console.print(f"Note: {note}")
    if answer.rows:
        console.print("What it is expected to take:")
        console.print(_grid(answer.rows))


def _print_json(experiment: Experiment, answer: Answer) -> None:
    content = {
        "file": experiment.file,
        "name": experiment.name,
        "parameters": [
            {
                "name": parameter.name,
                "distribution": parameter.distribution.describe(),
                "default": parameter.distribution.default,
                "condition": _condition(parameter) or None,
            }
            for parameter in experiment.space.parameters
        ],
        "warnings": [str(warning) for warning in experiment.warnings],
        "notes": answer.notes,
        "planned": sorted(experiment.automatic),
        "most": answer.most,
        "estimate": answer.estimate,
    }
    print(json.dumps(content, indent=2, ensure_ascii=False, default=str))


def parameter_table(experiment: Experiment, console: Console) -> Table:
    """Tabulates name, distribution, default and condition of every parameter."""
    from rich import box
    from rich.table import Table

    width = 200 if console.width >= _WIDE else 22
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("name", no_wrap=True)
    for heading in ("distribution", "default", "condition"):
        table.add_column(heading, overflow="fold")
    for parameter in experiment.space.parameters:
        table.add_row(
            fold(parameter.name, width),
            parameter.distribution.describe(),
            _default(parameter),
            fold(_condition(parameter), width),
        )
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


def _default(parameter: Parameter) -> str:
    from gsfl_tune.experiment.fields import show

    default = parameter.distribution.default
    return f"{default:.4g}" if isinstance(default, float) else show(default).strip("'")


def _condition(parameter: Parameter) -> str:
    from gsfl_tune.experiment.conditions import describe
    from gsfl_tune.experiment.fields import MISSING, show

    condition = describe(parameter.when)
    if parameter.otherwise is not MISSING:
        condition += ", else " + show(parameter.otherwise).strip("'")
    return condition


def _grid(rows: Mapping[str, str]) -> Table:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for heading, text in rows.items():
        grid.add_row(f"  {heading}", text)
    return grid
