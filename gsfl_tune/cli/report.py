"""``gsfl-tune report``: a run as one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from gsfl_tune.cli._base import FINISHED, Command, showing


class Report(Command):
    """Writes the page of a run."""

    name = "report"
    help = "write the results of a run, and their evidence, as one HTML file"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument(
            "run_dir", metavar="RUN", type=Path, help="run directory; the run may still be running"
        )
        parser.add_argument(
            "-o",
            "--output",
            type=Path,
            metavar="FILE",
            help="where the page goes (default: RUN/report.html)",
        )
        parser.add_argument("--open", action="store_true", help="open it in a browser")

    def run(self, args: argparse.Namespace) -> int:
        """Writes the page and prints its path."""
        from gsfl_tune.experiment.errors import UserError
        from gsfl_tune.experiment.units import megabytes
        from gsfl_tune.report import write_report

        if args.output is not None and args.output.is_dir():
            raise UserError(f"{args.output}: is a directory, allowed is the name of a file")
        try:
            with showing("making the page", short=True):
                target = write_report(args.run_dir, args.output)
        except OSError as error:
            where = args.output or args.run_dir
            raise UserError(f"{where}: the page cannot be written ({error.strerror})") from error
        print(f"report: {target} ({megabytes(target.stat().st_size)})")
        if args.open:
            import webbrowser

            if not webbrowser.open(target.resolve().as_uri()):
                print("there is no browser here; open the file yourself")
        return FINISHED
