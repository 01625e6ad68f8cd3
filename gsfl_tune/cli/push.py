"""``gsfl-tune push``: the winner of a run on the Hugging Face hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from gsfl_tune.cli._base import FINISHED, Command, showing


class Push(Command):
    """Publishes a bundle on the Hugging Face hub."""

    name = "push"
    help = (
        "publish the winner of a run, or an exported bundle, as a model on the Hugging Face hub, "
        "with its card; `hf://OWNER/NAME` then stands for the bundle in every command"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument(
            "run_dir", metavar="RUN", type=Path, help="run directory, or the directory of an export"
        )
        parser.add_argument(
            "name", metavar="NAME", help="OWNER/NAME; NAME alone is of the token's owner"
        )
        parser.add_argument(
            "--private", action="store_true", help="make a new model that only its owner sees"
        )
        parser.add_argument(
            "--revision", metavar="BRANCH", help="branch that gets the commit (default: main)"
        )
        parser.add_argument("--message", metavar="TEXT", help="message of the commit")
        parser.add_argument(
            "--license",
            metavar="ID",
            help="licence for the card, such as cc-by-4.0 (default: that of the backbone's "
            "weights, where it is known)",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Publishes, and says where the bundle is."""
        with showing("loading the bundle", stderr=False) as display:
            from gsfl_tune.activity import activity
            from gsfl_tune.export.push import push

            with activity(f"sending the bundle to {args.name}"):
                done = push(
                    args.run_dir,
                    args.name,
                    private=args.private,
                    revision=args.revision,
                    message=args.message,
                    licence=args.license,
                    say=display.say,
                )
        print(f"published {done.url}")
        for name in done.files:
            print(f"  {name}")
        print(f"This bundle, whatever is pushed later:\n  {done.place}")
        return FINISHED
