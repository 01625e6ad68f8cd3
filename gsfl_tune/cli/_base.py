"""The common parts of all commands: the base class and the arguments that name an experiment."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from gsfl_tune.activity.display import Display
    from gsfl_tune.experiment import Experiment

FINISHED = 0
FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 3


class Command(ABC):
    """Defines one subcommand of ``gsfl-tune``."""

    name: ClassVar[str]
    help: ClassVar[str]

    @abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""

    @abstractmethod
    def run(self, args: argparse.Namespace) -> int:
        """Does the work and returns the exit code."""


def add_experiment_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Adds FILE and --set for commands that take an experiment."""
    parser.add_argument(
        "file", metavar="FILE", nargs=None if required else "?", help="experiment file (YAML)"
    )
    add_overrides(parser)


def add_files_from(parser: argparse.ArgumentParser) -> None:
    """Adds --files-from for commands that take names of images."""
    parser.add_argument(
        "--files-from",
        metavar="LIST",
        action="append",
        default=[],
        help="a text file that names images, one per line; - is standard input",
    )


def add_budget(parser: argparse.ArgumentParser) -> None:
    """Adds --trials and --time for commands that search."""
    parser.add_argument("--trials", type=int, metavar="N", help="the same as --set search.trials=N")
    parser.add_argument(
        "--time",
        metavar="TIME",
        help="for everything up to the tested bundle (90s, 40m, 6h, 2d); the same as --set "
        "search.time_budget=TIME",
    )


def budget_overrides(args: argparse.Namespace) -> list[str]:
    """Returns the overrides that --trials and --time stand for."""
    given = {"search.trials": args.trials, "search.time_budget": args.time}
    return [f"{path}={value}" for path, value in given.items() if value is not None]


def refuse_change_without_resume(args: argparse.Namespace) -> None:
    """Refuses --change-space without a run to resume.

    Raises:
        UserError: If it is given without --resume.
    """
    from gsfl_tune.experiment import UserError

    if args.change_space and args.resume is False:
        raise UserError("--change-space: found without --resume, allowed with it")


def add_overrides(parser: argparse.ArgumentParser, *, example: str = "search.trials=10") -> None:
    """Adds --set alone, for commands where an experiment is only one kind of input."""
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        help=f"override a leaf, for example --set {example}; may be given many times",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Adds --engine and --precision for commands that answer with a bundle."""
    parser.add_argument(
        "--engine",
        default="auto",
        metavar="ENGINE",
        help="who computes on a CPU: torch, openvino (extra `cpu`), onnxruntime (extra `export`), "
        "or auto (default): OpenVINO where it is installed, gives PyTorch's answers and is worth "
        "its start",
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        metavar="P",
        help="of the computation on a CPU: fp32 (default), or bf16: faster, with other digits",
    )


@contextmanager
def showing(what: str, *, stderr: bool = True, short: bool = False) -> Iterator[Display]:
    """Shows what a command does while it prints nothing else.

    Args:
        what: Text for the time without a more specific one, such as while libraries load.
        stderr: Whether to write to standard error, for a command whose standard output is its
            answer.
        short: Whether to show it on a terminal only. For a command that takes seconds, as
            scripts may treat any text on standard error as a fault.
    """
    from rich.console import Console

    from gsfl_tune.activity import activity
    from gsfl_tune.activity.display import Display

    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    display = Display(console)
    if short and not console.is_terminal:
        yield display
        return
    with display, activity(what):
        yield display


def load_experiment(args: argparse.Namespace) -> Experiment:
    """Loads FILE with its overrides, checking backbones, weights and plugins too.

    Raises:
        ExperimentError: With every problem of the file.
    """
    from gsfl_tune.experiment import Experiment
    from gsfl_tune.models import (
        adapters_problem,
        backbone_problem,
        pooling_problem,
        second_backbone_problem,
        weights_problem,
    )
    from gsfl_tune.run.storage import storage_problem
    from gsfl_tune.training.caches.teacher import teacher_problem
    from gsfl_tune.training.optim import optimizer_problem
    from gsfl_tune.training.pretrain import lightly_problem

    return Experiment.load(
        args.file,
        overrides=args.overrides,
        checks={
            "model.backbone": backbone_problem,
            "model.backbone_b": second_backbone_problem,
            "model.pooling": pooling_problem,
            "model.weights": weights_problem,
            "model.weights_b": lambda value: value and weights_problem(value),
            "training.finetune.train": adapters_problem,
            "training.finetune.optimizer": optimizer_problem,
            "storage": storage_problem,
            "training.teacher": teacher_problem,
            "training.pretrain": lambda wanted: lightly_problem() if wanted else None,
            **_plugin_checks(),
        },
    )


def _plugin_checks() -> dict[str, Callable[[Any], str | None]]:
    """Returns the checks for plugins; a package is imported only if the experiment names it."""
    from gsfl_tune.plugins import plugins

    def sampler(name: Any) -> str | None:
        if name not in plugins("sampler"):
            return None
        from gsfl_tune.search.samplers.plugin import sampler_problem

        return sampler_problem(name)

    def term(name: str) -> Callable[[Any], str | None]:
        def check(weight: Any) -> str | None:
            from gsfl_tune.losses import term_problem

            return term_problem(name) if weight else None

        return check

    def source(name: Any) -> str | None:
        if name not in plugins("source"):
            return None
        from gsfl_tune.data.sources import source_problem

        return source_problem(name)

    def transform(name: str) -> Callable[[Any], str | None]:
        def check(strength: Any) -> str | None:
            from gsfl_tune.data.transforms import transform_problem

            return transform_problem(name) if strength else None

        return check

    def method(name: Any) -> str | None:
        if name not in plugins("method"):
            return None
        from gsfl_tune.methods import method_problem

        return method_problem(name)

    def metric(key: Any) -> str | None:
        from gsfl_tune.experiment.metrics import metric_problem

        # All of them are computed, whichever is the objective.
        return next(filter(None, map(metric_problem, plugins("metric"))), None)

    def metric_learning(weight: Any) -> str | None:
        from gsfl_tune.losses import metric_learning_problem

        return metric_learning_problem(weight)

    def restorer(path: Any) -> str | None:
        from gsfl_tune.data.transforms.restorer import restorer_problem

        return restorer_problem(path)

    added = {f"loss.terms.{name}": term(name) for name in plugins("loss_term")}
    added |= {f"data.augment.transforms.{name}": transform(name) for name in plugins("transform")}
    return {
        "search.sampler.name": sampler,
        "search.metric": metric,
        "data.source": source,
        "training.method": method,
        "loss.metric_learning.weight": metric_learning,
        "data.augment.restorer": restorer,
        **added,
    }


def positive(text: str) -> int:
    """Parses a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: If it is less.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value
