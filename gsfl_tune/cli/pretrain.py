"""``gsfl-tune pretrain``: weights of the backbone, learned from images without labels."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsfl_tune.cli._base import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    Command,
    add_experiment_arguments,
    load_experiment,
    showing,
)
from gsfl_tune.cli.search import stoppable

if TYPE_CHECKING:
    from gsfl_tune.experiment.config import Config
    from gsfl_tune.pretraining import Pretrained
    from gsfl_tune.training import Workspace
    from gsfl_tune.training.pretrain import PretrainingTeam


class Pretrain(Command):
    """Learns a backbone's weights without labels and judges them on the validation part."""

    name = "pretrain"
    help = "learn the backbone's weights from the training images without labels, for model.weights"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        add_experiment_arguments(parser)
        parser.add_argument(
            "--run-dir",
            type=Path,
            metavar="DIR",
            help="where weights, epochs and checkpoint go (default: runs/NAME-pretrain)",
        )
        parser.add_argument(
            "--resume", action="store_true", help="continue what is in the directory"
        )

    def run(self, args: argparse.Namespace) -> int:
        """Trains, and prints a line per epoch and a table at the end."""
        shown = showing("reading the experiment and loading PyTorch", stderr=False)
        with shown as display, stoppable() as stop_if_asked:
            experiment = load_experiment(args)
            from gsfl_tune.pretraining import PAGE_FILE, pretrain
            from gsfl_tune.run.layout import CHECKPOINT_FILE
            from gsfl_tune.training.pretrain import PretrainingFailed

            stop_if_asked()
            directory = args.run_dir or Path("runs") / f"{experiment.name}-pretrain"
            display.say(f"pretraining in {directory}")
            found: Pretrained | None
            try:
                found = pretrain(
                    experiment,
                    directory,
                    resume=args.resume,
                    on_record=lambda record: display.say(_line(record)),
                    notice=display.say,
                    gather=_gather,
                )
            except PretrainingFailed as error:
                display.say(f"failed: {error}")
                return FAILED
            except KeyboardInterrupt:
                if not (directory / "pretrain.json").exists():
                    raise  # nothing was begun, so nothing can be resumed
                found = None
            except Exception as error:
                if (reason := _reason(error)) is None:
                    raise
                display.say(f"failed: {reason}")
                if (directory / CHECKPOINT_FILE).exists():
                    display.say(_kept(args, directory))
                return FAILED
        # Behind what the display still says.
        if found is None:
            print(f"interrupted; {_kept(args, directory)}")
            return INTERRUPTED
        _print_table(found.records)
        print(f"weights: {found.weights}")
        print(f"page: {directory / PAGE_FILE}")
        print(f"use them: --set model.weights={found.weights}")
        return FINISHED


def _reason(error: Exception) -> str | None:
    """Says why memory or a process failed; None for any other error."""
    from gsfl_tune.experiment.errors import UserError
    from gsfl_tune.search.workers.rank_process import RankLost
    from gsfl_tune.training.out_of_memory import out_of_memory

    if isinstance(error, UserError):
        return None
    if complaint := out_of_memory(error):
        return f"out of memory ({complaint}); a smaller pretrain.batch_size needs less"
    return str(error) if isinstance(error, RankLost) else None


def _kept(args: argparse.Namespace, directory: Path) -> str:
    """Says how to continue."""
    words = ["gsfl-tune", "pretrain", args.file, "--run-dir", str(directory), "--resume"]
    for override in args.overrides:
        words += ["--set", override]
    return f"finished epochs are kept. Continue with:\n  {shlex.join(words)}"


def _gather(config: Config, workspace: Workspace) -> PretrainingTeam | None:
    """Starts as many processes as a trial of the experiment has."""
    import torch

    from gsfl_tune.training import resolve_device

    asked = config.search.resources.of(config.model.backbone) or config.search.resources
    if resolve_device(config.training.device).type == "cuda":
        from gsfl_tune.cluster.session.slots import processes

        # A process without a GPU of its own would wait for the others for hours.
        workers = processes(asked, torch.cuda.device_count())
    else:
        workers = asked.workers_per_trial or asked.gpus_per_trial or 1
    if workers == 1:
        return None

    from gsfl_tune.search.workers.pretraining_team import pretraining_team

    threads = max(1, torch.get_num_threads() // workers)
    return pretraining_team(config, workspace, workers, threads)


def _line(record: dict[str, Any]) -> str:
    parts = [f"epoch {record['epoch']:>3}"]
    for name in ("loss", "reconstruction", "pair", "screening", "spread", "projected"):
        if (value := record.get(f"train/{name}")) is not None:
            parts.append(f"{name} {value:.4f}")
    parts += [f"{name} {100 * value:.1f} %" for name, value in _judged(record).items()]
    if "seconds" in record:
        parts.append(f"{record['seconds']:.1f} s")
    return "  ".join(parts)


def _judged(record: dict[str, Any]) -> dict[str, float]:
    from gsfl_tune.experiment.metrics import VALIDATION, of_part

    return of_part(VALIDATION, record)


def _print_table(records: list[dict[str, Any]]) -> None:
    """Prints what the representation was worth, an epoch a column."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    judged = [(record["epoch"], _judged(record)) for record in records if _judged(record)]
    # The first, the last, and as many in between as are easily read.
    step = -(-(len(judged) - 1) // 6) or 1
    chosen = [*judged[:-1:step], judged[-1]]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("validation part, %")
    for epoch, _ in chosen:
        table.add_column(f"epoch {epoch}" if epoch else "before", justify="right")
    for name in dict.fromkeys(name for _, each in chosen for name in each):
        values = [each.get(name) for _, each in chosen]
        cells = ["" if value is None else f"{100 * value:.1f}" for value in values]
        table.add_row(name.replace("_", " ").replace("/", ", "), *cells)
    Console(highlight=False).print(table)
