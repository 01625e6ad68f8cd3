"""What all commands share: the base class and the arguments that name an experiment."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from gsfl_tune.experiment import Experiment

FINISHED = 0
FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 3


class Command(ABC):
    """One subcommand of ``gsfl-tune``."""

    name: ClassVar[str]
    help: ClassVar[str]

    @abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""

    @abstractmethod
    def run(self, args: argparse.Namespace) -> int:
        """Does the work and returns the exit code."""


def add_experiment_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Adds FILE and --set, which every command that takes an experiment has."""
    parser.add_argument(
        "file", metavar="FILE", nargs=None if required else "?", help="experiment file (YAML)"
    )
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser, *, example: str = "search.trials=10") -> None:
    """Adds --set alone, for commands that take an experiment among other things."""
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        help=f"override a leaf, for example --set {example}; may be given many times",
    )


def load_experiment(args: argparse.Namespace) -> Experiment:
    """Loads FILE with its overrides, checking backbones and weights too.

    Raises:
        ExperimentError: With every problem of the file.
    """
    from gsfl_tune.experiment import Experiment
    from gsfl_tune.models import backbone_problem, weights_problem
    from gsfl_tune.run.storage import storage_problem

    return Experiment.load(
        args.file,
        overrides=args.overrides,
        checks={
            "model.backbone": backbone_problem,
            "model.weights": weights_problem,
            "storage": storage_problem,
        },
    )
