"""The command line: its subcommands, and the exit codes of errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from gsfl_tune.cli._base import BAD_INPUT, FAILED, Command
from gsfl_tune.cli.adapt import Adapt
from gsfl_tune.cli.cache import Cache
from gsfl_tune.cli.check import Check
from gsfl_tune.cli.clean import Clean
from gsfl_tune.cli.compare import Compare
from gsfl_tune.cli.data import Data
from gsfl_tune.cli.doctor import Doctor
from gsfl_tune.cli.embed import Embed
from gsfl_tune.cli.evaluate import Evaluate
from gsfl_tune.cli.evidence import Evidence
from gsfl_tune.cli.explain import Explain
from gsfl_tune.cli.export import Export
from gsfl_tune.cli.init import Init
from gsfl_tune.cli.logs import Logs
from gsfl_tune.cli.predict import Predict
from gsfl_tune.cli.pretrain import Pretrain
from gsfl_tune.cli.push import Push
from gsfl_tune.cli.report import Report
from gsfl_tune.cli.results import Results
from gsfl_tune.cli.runs import Runs
from gsfl_tune.cli.schema import Schema
from gsfl_tune.cli.search import Search
from gsfl_tune.cli.serve import Serve
from gsfl_tune.cli.status import Status
from gsfl_tune.cli.stop import Stop
from gsfl_tune.cli.submit import Submit
from gsfl_tune.cli.synthesize import Synthesize
from gsfl_tune.cli.track import Track
from gsfl_tune.cli.train import Train
from gsfl_tune.cli.watch import Watch
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.plugins import PluginError

__all__ = ["COMMANDS", "main"]

COMMANDS: list[type[Command]] = [
    Init,
    Check,
    Schema,
    Data,
    Synthesize,
    Pretrain,
    Train,
    Search,
    Results,
    Report,
    Watch,
    Runs,
    Compare,
    Clean,
    Export,
    Push,
    Evaluate,
    Evidence,
    Predict,
    Embed,
    Explain,
    Adapt,
    Serve,
    Track,
    Cache,
    Doctor,
    Submit,
    Status,
    Logs,
    Stop,
]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gsfl-tune",
        description="Search for the best GSFL-Net: one YAML file in, one checkpoint out.",
        epilog="Exit codes: 0 finished, 1 failed, 2 bad input, 3 interrupted and can be resumed.",
    )
    parser.add_argument("--version", action="version", version=f"gsfl-tune {_version()}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command_class in COMMANDS:
        command = command_class()
        subparser = subparsers.add_parser(command.name, help=command.help, description=command.help)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def _version() -> str:
    try:
        return version("gsfl-tune")
    except PackageNotFoundError:  # a checkout can train without an installation
        return "(a checkout, not installed)"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Arguments; default: the arguments of the process.

    Returns:
        0 finished, 1 failed, 2 bad input, 3 interrupted and can be resumed.
    """
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except (UserError, PluginError) as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        # `search` handles it itself where there is something to resume.
        print("interrupted", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # `gsfl-tune results RUN | head`: the reader has closed the pipe.
        sys.stderr.close()
        return FAILED
