"""``gsfl-tune check``: options and lines of the estimate in hours and money."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from gsfl_tune.cli._base import positive, showing
from gsfl_tune.cores import usable_cores

if TYPE_CHECKING:
    from gsfl_tune.experiment import Experiment
    from gsfl_tune.search.costs.estimate import Estimate


# CPU cores and GPUs of a cluster that is not there.
_ANY = 1e6


def add_estimate_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "--price",
        metavar="PER_HOUR",
        type=_price,
        help="price of a slot (the GPU or the cores of one trial) for an hour: shows what the "
        "search costs",
    )
    parser.add_argument(
        "--slots",
        metavar="N",
        type=positive,
        help="number of parallel trials (default: what fits on this machine)",
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="read the images and time some training steps here, to estimate the time of a search "
        "without a time budget",
    )


def estimate_of(args: argparse.Namespace, experiment: Experiment) -> Estimate | None:
    """Returns the estimate; None if neither a time budget nor --measure gives one.

    Raises:
        UserError: If --price or --slots is given and there is no estimate, or the data cannot be
            used.
    """
    from dataclasses import replace

    import torch

    from gsfl_tune.cluster import fit
    from gsfl_tune.experiment import UserError
    from gsfl_tune.experiment.units import seconds
    from gsfl_tune.search.costs.estimate import of_budget
    from gsfl_tune.training.at_once import most_at_once

    search = experiment.defaults().search
    if search.time_budget is None and not args.measure:
        for name in ("price", "slots"):
            if getattr(args, name) is not None:
                raise UserError(
                    f"--{name}: found a search without search.time_budget, allowed with one or "
                    "with --measure"
                )
        return None
    node = {
        "CPU": float(usable_cores()),
        "GPU": float(torch.cuda.device_count()),
    }
    if args.slots is not None:
        # They are elsewhere: a machine on which any number fits.
        node = {"CPU": _ANY, "GPU": _ANY if search.resources.gpu != "auto" else node["GPU"]}
    slots = fit(search.resources, [node], most_at_once(experiment.defaults()))
    if args.slots is not None:
        slots = replace(slots, count=args.slots, gpu=slots.asked)
    if search.time_budget is not None:
        return of_budget(seconds(search.time_budget), slots.count, slots.gpu)
    with showing("timing steps", short=True):
        from gsfl_tune.search.opening.estimating import measured

        return measured(experiment, slots)


def rows(estimate: Estimate, price: float | None) -> dict[str, str]:
    """Returns the estimate as text by heading."""
    from gsfl_tune.experiment.units import time_text

    plural = "s" if estimate.slots > 1 else ""
    text = f"{time_text(estimate.seconds)} on {estimate.slots} slot{plural}"
    if estimate.basis == "budget":
        text = f"{text} (search.time_budget)"
    else:
        parts = [f"{name} {time_text(spent)}" for name, spent in estimate.parts.items()]
        text = f"about {text}: {', '.join(parts)}; steps timed here, with the defaults"
    hours = f"{estimate.slot_hours:.3g} of slots"
    if estimate.gpus:
        hours += f", {estimate.gpu_hours:.3g} of GPUs ({estimate.gpus:g} a slot)"
    found = {"time": text}
    if estimate.epochs and estimate.training is not None:
        stages = ", ".join(f"{name} {_short(each)}" for name, each in estimate.epochs.items())
        found["an epoch"] = f"{stages}; {time_text(estimate.training)} for a whole training"
    found["hours"] = hours
    if price is not None:
        found["money"] = f"{estimate.money(price):,.2f}, at {price:g} for an hour of a slot"
    return found


def _short(seconds: float) -> str:
    """Formats the seconds of an epoch, which may be less than one."""
    from gsfl_tune.experiment.units import time_text

    return f"{seconds:.2g} s" if seconds < 10 else time_text(seconds)


def _price(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"found '{text}', allowed a number from 0 on, such as 2.5")
    return value
