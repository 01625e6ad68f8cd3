"""``gsfl-tune results``: the results of a run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from gsfl_tune.cli._base import FINISHED, Command


class Results(Command):
    """Shows winner, control and the best trials of a run."""

    name = "results"
    help = "show what a run found, also while it is running"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("run_dir", metavar="RUN", type=Path, help="run directory")
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="print JSON")
        form.add_argument("--csv", action="store_true", help="print the table of trials as CSV")

    def run(self, args: argparse.Namespace) -> int:
        """Prints the results in the requested form."""
        from gsfl_tune.report import load_results, print_results

        run = load_results(args.run_dir)
        if args.json:
            print(json.dumps(run.to_json(), indent=2, ensure_ascii=False))
        elif args.csv:
            run.trials.to_csv(sys.stdout, index=False)
        else:
            print_results(run)
        return FINISHED
