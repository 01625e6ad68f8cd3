"""``gsfl-tune schema``: the JSON schema of experiment files."""

from __future__ import annotations

import argparse
import json

from gsfl_tune.cli._base import FINISHED, Command


class Schema(Command):
    """Prints the JSON schema, so that editors complete the YAML."""

    name = "schema"
    help = "print the JSON schema of experiment files, for editors"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """There are none."""

    def run(self, args: argparse.Namespace) -> int:
        """Prints it."""
        from gsfl_tune.experiment.json_schema import json_schema

        print(json.dumps(json_schema(), indent=2))
        return FINISHED
