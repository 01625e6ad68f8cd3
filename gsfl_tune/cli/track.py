"""``gsfl-tune track``: an existing run in MLflow, W&B or TensorBoard."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import FAILED, FINISHED, Command, showing
from gsfl_tune.cli.search import add_trackers
from gsfl_tune.experiment.errors import UserError, first_line

if TYPE_CHECKING:
    from gsfl_tune.run import RunDirectory
    from gsfl_tune.search.observers.tracking import Tracker


class Track(Command):
    """Sends a run to other programs."""

    name = "track"
    help = (
        "log a run, or its missing part, to MLflow or W&B afterwards; nothing is logged twice. "
        "--tensorboard completes what `tensorboard --logdir RUN` shows"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("run_dir", metavar="RUN", type=Path, help="run directory")
        add_trackers(parser)
        parser.add_argument(
            "--tensorboard",
            action="store_true",
            help="write RUN/tensorboard anew: the table of parameters, pictures of the winner, and "
            "trials whose events are not in the run directory, with pictures from its storage",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Sends the run and prints how much was sent."""
        from gsfl_tune.run import RunDirectory, run_lock
        from gsfl_tune.search.observers.tracking import open_trackers

        if not (args.mlflow or args.wandb or args.tensorboard):
            raise UserError("nothing to do: give --mlflow URI, --wandb PROJECT or --tensorboard")
        run = RunDirectory(args.run_dir)
        if not run.manifest_file.is_file():
            raise UserError(f"{args.run_dir}: no such run directory")
        trackers = open_trackers(mlflow=args.mlflow, wandb=args.wandb)
        try:
            with run_lock(run):
                return self._send(run, trackers, args)
        except OSError as error:
            print(f"{args.run_dir}: {first_line(error)}", file=sys.stderr)
            return FAILED

    def _send(
        self, run: RunDirectory, trackers: Sequence[Tracker], args: argparse.Namespace
    ) -> int:
        from gsfl_tune.search.observers.tracking import track_run, write_tensorboard

        if args.tensorboard:
            folder = write_tensorboard(run, lambda text: print(text, file=sys.stderr))
            print(f"wrote {folder}; look at it with\n  tensorboard --logdir {args.run_dir}")
        for tracker in trackers:
            try:
                with showing(f"sending to {tracker.name}", short=True):
                    count = track_run(run, [tracker])
            except Exception as error:  # clients raise errors of any class
                text = first_line(error)
                for secret in tracker.secrets:
                    text = text.replace(secret, "***")
                print(f"{tracker.name}: {text}", file=sys.stderr)
                return FAILED
            print(f"{tracker.name}: {count} trials are up to date")
        return FINISHED
