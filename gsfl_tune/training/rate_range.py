"""The learning-rate range test: how the loss of each stage answers to rates that rise."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gsfl_tune.arguments import call, instance
from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.experiment.config import Config
from gsfl_tune.training.fit_groups import fit_groups
from gsfl_tune.training.fit_precision import refuse_unfit_precision
from gsfl_tune.training.rate_sweep import RateSweep, SweepOver, below_minimum, steepest
from gsfl_tune.training.standalone import open_workspace
from gsfl_tune.training.timeline import Timeline
from gsfl_tune.training.training import NonFiniteLoss, Training
from gsfl_tune.training.workspace import Workspace

STEPS = 100
LOWEST, HIGHEST = 1e-6, 10.0
_FEWEST = 20


@dataclass(frozen=True)
class RateRange:
    """Holds what a range test found for a stage.

    Attributes:
        stage: Name of the stage.
        key: Key of its learning rate in an experiment file.
        present: The rate that the experiment has by default.
        rates: (N,) rates of the steps.
        losses: (N,) training losses of the batches, before the update with that rate.
        smoothed: (N,) their moving average.
        steepest: Rate at which the smoothed loss falls fastest; None where it never falls.
        below_minimum: A tenth of the rate with the lowest smoothed loss.
        diverged: Whether the loss diverged before the highest rate was tried.
    """

    stage: str
    key: str
    present: float
    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    steepest: float | None
    below_minimum: float
    diverged: bool

    def as_dict(self) -> dict[str, Any]:
        """Returns all attributes, for JSON."""
        return asdict(self)


def find_rates(
    experiment: Experiment,
    *,
    steps: int = STEPS,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    cache_dir: Path | None = None,
    notice: Callable[[str], None] = lambda line: None,
) -> list[RateRange]:
    """Finds learning rates by a test of rising ones in each stage of the default configuration.

    A stage begins as it does in a training: those before it are trained to their end. Nothing of
    it is kept. Source: L. N. Smith, "Cyclical Learning Rates for Training Neural Networks",
    WACV 2017.

    Args:
        experiment: The experiment; its distributions take their defaults.
        steps: Optimiser steps of a test, at least 20.
        lowest: Rate of the first step.
        highest: Rate of the last step.
        cache_dir: Root of the node's caches.
        notice: Called with a line for each test that begins.

    Returns:
        One for each stage that has epochs, in their order.

    Raises:
        UserError: When the arguments, the data or the configuration cannot be used.
        NonFiniteLoss: When a stage diverges that is trained in front of a test.
    """
    instance(Experiment, experiment, "find_rates: experiment", "an Experiment")
    call(notice, "find_rates: notice", "a function that takes a line of text")
    if steps < _FEWEST:
        raise UserError(f"steps of a range test: found {steps}, allowed: {_FEWEST} and more")
    if not 0 < lowest < highest < math.inf:
        raise UserError(
            f"rates of a range test: found {lowest:g} to {highest:g}, allowed: above 0, and rising"
        )
    refuse_unfit_precision(experiment)
    workspace = open_workspace(experiment, cache_dir)
    config = fit_groups(experiment, workspace).defaults()
    found = []
    for name in (stage.name for stage in Timeline.of(config).stages):
        notice(f"range test of the {name} stage")
        found.append(_tested(config, workspace, name, steps, lowest, highest))
    return found


def _tested(
    config: Config, workspace: Workspace, name: str, steps: int, lowest: float, highest: float
) -> RateRange:
    section = getattr(config.training, name)
    sweep = RateSweep(section.learning_rate, lowest, highest, steps)
    # At least a step an epoch: the stage does not end before the sweep.
    longer = section.model_copy(update={"epochs": max(section.epochs, steps + 1)})
    training_config = config.training.model_copy(update={name: longer})
    swept = config.model_copy(update={"training": training_config})
    with tempfile.TemporaryDirectory(prefix="gsfl-rates-") as folder:
        training = Training(swept, workspace, Path(folder))
        try:
            while True:
                if training.timeline.stage(training.epoch).name == name:
                    training.context.sweep = sweep
                training.run_epoch()
        except SweepOver:
            pass
        except NonFiniteLoss:
            if training.context.sweep is None:  # in a stage before it
                raise
    if len(sweep.rates) < _FEWEST:
        raise UserError(
            f"range test of the {name} stage: the loss diverged after {len(sweep.rates)} steps, at "
            f"a rate of {sweep.rates[-1] if sweep.rates else lowest:g}; allowed: a lower first rate"
        )
    rates, smoothed = sweep.rates, sweep.smoothed
    return RateRange(
        stage=name,
        key=f"training.{name}.learning_rate",
        present=section.learning_rate,
        rates=rates,
        losses=sweep.losses,
        smoothed=smoothed,
        steepest=steepest(rates, smoothed),
        below_minimum=below_minimum(rates, smoothed),
        diverged=len(rates) < steps,
    )
