"""``gsfl-tune clean``: removes what a run needs no more."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gsfl_tune.cli._base import BAD_INPUT, FINISHED, Command


class Clean(Command):
    """Shows or removes checkpoints that nothing needs any more."""

    name = "clean"
    help = (
        "show what runs need no more (checkpoints), and remove it with --yes; results, evidence, "
        "journal, predictions and bundles stay"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument(
            "runs", metavar="RUN", type=Path, nargs="+", help="run directories that have ended"
        )
        parser.add_argument("--yes", action="store_true", help="remove what is shown")
        parser.add_argument(
            "--retrained",
            action="store_true",
            help="also the retrained models of winner and control: best/ keeps the first; `export "
            "--ensemble` is then not possible, and `evidence` uses the first alone",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> int:
        """Shows or removes; the exit code is 2 if a run was refused."""
        from gsfl_tune.experiment.errors import UserError
        from gsfl_tune.runs import clean, plan_cleaning
        from gsfl_tune.runs.tables import print_cleaning

        told: list[dict[str, Any]] = []
        refused = False
        for path in args.runs:
            try:
                act = clean if args.yes else plan_cleaning
                plan = act(path, retrained=args.retrained)
            except UserError as error:
                refused = True
                told.append({"path": str(path), "refused": str(error)})
                print(error, file=sys.stderr)
                continue
            told.append({**plan.to_json(), "removed": args.yes})
            if not args.json:
                print_cleaning(plan, path, removed=args.yes, retrained=args.retrained)
        if args.json:
            print(json.dumps(told, indent=2, ensure_ascii=False))
        return BAD_INPUT if refused else FINISHED
