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
    help = (
        "train one configuration without Ray: the defaults of the distributions, or --set; "
        "--find-lr tests its learning rates"
    )

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
        parser.add_argument(
            "--find-lr",
            action="store_true",
            help="train nothing to keep: raise the learning rate of each stage from step to step, "
            "and draw the losses (DIR/learning-rates.png and .json; default DIR: runs/NAME-rates)",
        )
        parser.add_argument(
            "--steps",
            type=int,
            metavar="N",
            help="optimiser steps of each range test of --find-lr (default: 100)",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Trains and prints one line per epoch, or finds learning rates."""
        if args.find_lr:
            return _find_rates(args)
        if args.steps is not None:
            from gsfl_tune.experiment import UserError

            raise UserError("--steps: found without --find-lr, allowed with it")
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


def _find_rates(args: argparse.Namespace) -> int:
    with showing("reading the experiment and loading PyTorch", stderr=False) as display:
        experiment = load_experiment(args)
        from gsfl_tune.run import write_json
        from gsfl_tune.runs.rate_plot import draw_rates
        from gsfl_tune.training import NonFiniteLoss
        from gsfl_tune.training.rate_range import STEPS, find_rates

        steps = STEPS if args.steps is None else args.steps
        try:
            found = find_rates(experiment, steps=steps, notice=display.say)
        except NonFiniteLoss as error:
            display.say(f"failed: {error}")
            return FAILED
        directory = args.dir or Path("runs") / f"{experiment.name}-rates"
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "learning-rates.json", [each.as_dict() for each in found])
        picture = directory / "learning-rates.png"
        draw_rates(found).savefig(picture)
    for each in found:
        steepest = "none: the loss never falls"
        if each.steepest is not None:
            steepest = f"{each.steepest:.2g}"
        print(f"{each.key}: {each.present:g} in the experiment")
        print(f"  steepest fall of the loss   {steepest}")
        print(f"  a tenth of the lowest loss  {each.below_minimum:.2g}")
    print(f"picture: {picture}")
    return FINISHED


def _epoch(record: dict) -> str:
    return (
        f"epoch {record['epoch']:>3}  {record['stage']:<8}  loss {record['train/loss']:.4f}  "
        f"validation accuracy {record['validation/accuracy']:.4f}  "
        f"nll {record['validation/nll']:.4f}  {record['seconds']:.1f} s"
    )
