"""``gsfl-tune train``: the training of one configuration without Ray."""

from __future__ import annotations

import argparse
from pathlib import Path

from gsfl_tune.cli._base import (
    FAILED,
    FINISHED,
    Command,
    add_experiment_arguments,
    load_experiment,
    showing,
)


class Train(Command):
    """Trains the default configuration of an experiment, changed by --set."""

    name = "train"
    help = "train one configuration without Ray: the defaults of the distributions, or --set"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        add_experiment_arguments(parser)
        parser.add_argument(
            "--dir",
            type=Path,
            metavar="DIR",
            help="where epochs and checkpoint go (default: runs/NAME-train); a training that is "
            "already there is continued",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Trains and prints one line per epoch."""
        with showing("reading the experiment and loading PyTorch", stderr=False) as display:
            experiment = load_experiment(args)
            from gsfl_tune.experiment.metrics import METRIC_TITLES
            from gsfl_tune.training import NonFiniteLoss, train

            directory = args.dir or Path("runs") / f"{experiment.name}-train"
            display.say(f"training in {directory}")
            try:
                training = train(
                    experiment,
                    directory,
                    on_epoch=lambda record: display.say(_epoch(record)),
                    notice=display.say,
                )
            except NonFiniteLoss as error:
                display.say(f"failed: {error}")
                return FAILED
            metrics = training.scoring.of("validation", training.predict("validation"))
        first, further = [
            ", ".join(f"{n} {v:.4f}" for n, v in metrics.items() if (n in METRIC_TITLES) == main)
            for main in (True, False)
        ]
        print(f"finished: validation {first}")
        print(f"further: {further}")
        return FINISHED


def _epoch(record: dict) -> str:
    return (
        f"epoch {record['epoch']:>3}  {record['stage']:<8}  loss {record['train/loss']:.4f}  "
        f"validation accuracy {record['validation/accuracy']:.4f}  "
        f"nll {record['validation/nll']:.4f}  {record['seconds']:.1f} s"
    )
