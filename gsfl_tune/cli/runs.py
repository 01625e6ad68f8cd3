"""``gsfl-tune runs``: all runs below a folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from gsfl_tune.cli._base import FINISHED, Command


class Runs(Command):
    """Lists runs."""

    name = "runs"
    help = "list the runs below a folder: state, trials, best value, size, when"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument(
            "folder",
            metavar="DIR",
            type=Path,
            nargs="?",
            default=Path("runs"),
            help="folder that holds runs, at any depth (default: runs)",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> int:
        """Prints the runs, the last one written to first."""
        from gsfl_tune.runs import find_runs
        from gsfl_tune.runs.tables import print_runs

        found = find_runs(args.folder)
        if args.json:
            print(json.dumps([run.to_json() for run in found], indent=2, ensure_ascii=False))
        else:
            print_runs(found, args.folder)
        return FINISHED
