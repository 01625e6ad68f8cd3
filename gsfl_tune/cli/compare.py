"""``gsfl-tune compare``: several runs side by side."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from gsfl_tune.cli._base import FINISHED, Command, showing


class Compare(Command):
    """Compares runs."""

    name = "compare"
    help = (
        "compare runs: settings that differ, learning curves, and the winners on the same test "
        "images; differences are to the first run"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument(
            "runs", metavar="RUN", type=Path, nargs="+", help="run directories, two or more"
        )
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument(
            "--html", metavar="FILE", type=Path, help="also write a page with charts"
        )

    def run(self, args: argparse.Namespace) -> int:
        """Prints the comparison and writes the page.

        Raises:
            UserError: For fewer than two runs, a directory that is not a run, or a file that cannot
                be written.
        """
        with showing("loading PyTorch and the runs", short=True):
            from gsfl_tune.experiment.errors import UserError
            from gsfl_tune.runs import compare_runs
            from gsfl_tune.runs.side_by_side import print_comparison, write_page

            found = compare_runs(args.runs)
        if args.json:
            print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        else:
            print_comparison(found)
        if args.html is not None:
            try:
                write_page(found, args.html)
            except OSError as error:
                raise UserError(
                    f"--html: {args.html}: the page cannot be written ({error.strerror})"
                ) from error
            if not args.json:
                print(f"page: {args.html}")
        return FINISHED
