"""``gsfl-tune init``: an experiment file for images."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from gsfl_tune.cli._base import FINISHED, Command, add_overrides, showing


class Init(Command):
    """Writes an experiment file for the images at a path."""

    name = "init"
    help = "write an experiment file for the images at a path, with comments"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument(
            "path",
            metavar="PATH",
            help="image folder, a public data set's folder, Parquet (file, folder, URL)",
        )
        parser.add_argument(
            "-o",
            "--output",
            type=Path,
            metavar="FILE",
            help="where the file goes (default: NAME.yaml here, NAME that of the images)",
        )
        parser.add_argument(
            "--quick",
            action="store_true",
            help="a first answer in minutes: the head alone, on a frozen backbone",
        )
        parser.add_argument("--force", action="store_true", help="replace an existing file")
        add_overrides(parser, example="data.classes=leaf (how the images are listed)")

    def run(self, args: argparse.Namespace) -> int:
        """Writes the file, and prints what it was made of and the next steps.

        Raises:
            UserError: If the images cannot be listed, or the file already exists.
        """
        with showing("looking at the images, loading PyTorch", short=True):
            from gsfl_tune.cli._starter import make_starter, refuse_unwritten, said
            from gsfl_tune.experiment import UserError
            from gsfl_tune.experiment.starter import name_of
            from gsfl_tune.run import write_text

            refuse_unwritten(args.overrides)
            target = args.output or Path(f"{name_of(args.path)}.yaml")
            if target.is_dir():
                raise UserError(f"{target}: is a directory, allowed is the name of a file")
            if target.exists() and not args.force:
                raise UserError(f"{target}: already exists; --force replaces it, -o names another")
            starter = make_starter(args.path, args.overrides, quick=args.quick)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                write_text(target, starter.text)
            except OSError as error:
                raise UserError(f"{target}: cannot be written ({error.strerror})") from error
        for line in said(args.path, starter):
            print(line)
        for problem in starter.found.problems:
            print(f"a search would refuse this data: {problem}", file=sys.stderr)
        print(f"wrote {target}; next:")
        for command in ("check", "search"):
            print(f"  gsfl-tune {command} {shlex.quote(str(target))}")
        return FINISHED
