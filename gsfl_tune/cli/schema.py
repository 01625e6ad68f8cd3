"""``gsfl-tune schema``: the JSON schema of experiment files, or their reference."""

from __future__ import annotations

import argparse
import json

from gsfl_tune.cli._base import FINISHED, Command


class Schema(Command):
    """Prints the JSON schema, with which editors complete the YAML, or a page of all keys."""

    name = "schema"
    help = "print the JSON schema of experiment files for editors, or a reference of every key"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument(
            "--markdown",
            action="store_true",
            help="print the reference instead: every key with what it allows, as Markdown",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Prints the schema or the page."""
        if args.markdown:
            from gsfl_tune.experiment.reference import yaml_reference

            print(yaml_reference(), end="")
            return FINISHED
        from gsfl_tune.experiment.json_schema import json_schema

        print(json.dumps(json_schema(), indent=2))
        return FINISHED
