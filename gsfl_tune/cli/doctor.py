"""``gsfl-tune doctor``: a check whether a search can run on a cluster or on this machine."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import (
    BAD_INPUT,
    FINISHED,
    Command,
    add_experiment_arguments,
    load_experiment,
    showing,
)

if TYPE_CHECKING:
    from gsfl_tune.cluster import Inspection, Question
    from gsfl_tune.experiment import Experiment

_SECONDS = 60.0


class Doctor(Command):
    """Checks on every node what a search needs, and reports what must be fixed."""

    name = "doctor"
    help = "check that every node of a cluster, or this machine, can run a search"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        add_experiment_arguments(parser, required=False)
        parser.add_argument(
            "--run-dir",
            type=Path,
            metavar="DIR",
            help="where a run would go (default with FILE: runs/NAME)",
        )
        parser.add_argument(
            "--address",
            metavar="ADDR",
            help="address of a Ray cluster (default: RAY_ADDRESS, else this machine, without Ray)",
        )
        parser.add_argument(
            "--timeout",
            type=float,
            default=_SECONDS,
            metavar="SECONDS",
            help=f"longest time for an answer of a node (default: {_SECONDS:g})",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> int:
        """Prints one row per node and one line per problem.

        Returns:
            2 when something must be fixed, 0 otherwise; warnings do not count.

        Raises:
            UserError: When the file is wrong or the cluster does not answer.
        """
        with showing("asking every node what a search needs of it", short=True):
            experiment = load_experiment(args) if args.file else None
            inspection = _inspect(args, experiment)
        if args.json:
            print(json.dumps(inspection.to_json(), indent=2, ensure_ascii=False))
        else:
            _print(inspection)
        return BAD_INPUT if inspection.problems else FINISHED


def _inspect(args: argparse.Namespace, experiment: Experiment | None) -> Inspection:
    from gsfl_tune.cache.entries import cache_directory
    from gsfl_tune.cluster import Question, data_paths, stored_at
    from gsfl_tune.experiment import UserError

    run_dir: Path | None = args.run_dir
    if run_dir is None and experiment is not None:
        run_dir = Path("runs") / experiment.name
    question = Question(
        run=run_dir,
        storage=stored_at(experiment) if experiment else None,
        data=data_paths(experiment) if experiment else (),
        cache=cache_directory(),
        seconds=args.timeout,
    )
    address = args.address or os.environ.get("RAY_ADDRESS")
    if address and address.startswith(("http://", "https://")):
        words = ["gsfl-tune", "doctor", *([args.file] if args.file else [])]
        words += ["--run-dir", str(args.run_dir)] if args.run_dir else []
        raise UserError(
            f"--address {address}: this is a dashboard, and doctor must run in the cluster:\n"
            f"  ray job submit --address {address} --working-dir . -- {shlex.join(words)}"
        )
    return _ask(question, address, experiment)


def _ask(question: Question, address: str | None, experiment: Experiment | None) -> Inspection:
    from gsfl_tune.cluster import inspect_cluster, inspect_here, ray_session

    if not address or address == "local":
        inspection = inspect_here(question)
    else:
        with ray_session(address):
            inspection = inspect_cluster(question)
    return inspection if experiment is None else inspection.with_request(experiment)


def _print(inspection: Inspection) -> None:
    from gsfl_tune.cluster import node_table

    print(node_table(inspection))
    for finding in inspection.findings:
        print(finding)
    count, warnings = len(inspection.problems), len(inspection.warnings)
    said = f"{count} problem{'s' if count != 1 else ''}" if count else "good"
    nodes = len(inspection.nodes)
    also = f", {warnings} warning{'s' if warnings > 1 else ''}" if warnings else ""
    print(f"{nodes} node{'s' if nodes > 1 else ''}: {said}{also}")
