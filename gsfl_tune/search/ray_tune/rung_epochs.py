"""The epochs at which a trial is compared with others."""

from __future__ import annotations

from collections.abc import Callable

from optuna.trial import FrozenTrial

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.search.costs.trial_costs import TrialCosts
from gsfl_tune.search.samplers.history import RUNG_EPOCHS
from gsfl_tune.search.study.noting import Noting
from gsfl_tune.training.timeline import STAGES, Timeline


def largest_timeline(experiment: Experiment) -> Timeline:
    """Takes the largest number of epochs of every stage in a space: every trial has rungs."""
    return Timeline(
        tuple(max(experiment.values(f"training.{each.name}.epochs")) for each in STAGES)
    )


def rungs_begun_with(trial: FrozenTrial, computed: list[int]) -> list[int]:
    """Returns the rung epochs that a trial was begun with, or those of today's prices.

    Args:
        trial: The trial.
        computed: What `rung_epochs` gives now.
    """
    kept = trial.user_attrs.get(RUNG_EPOCHS)
    # After a change of the space its rungs are others.
    if kept is None or len(kept) != len(computed) or kept[-1] != computed[-1]:
        return computed
    return [int(epoch) for epoch in kept]


def kept_rungs(study: Noting, trial: FrozenTrial, computed: list[int]) -> list[int]:
    """Returns the rung epochs of a trial and keeps them: prices change, its rungs must not.

    Args:
        study: The study.
        trial: One of its running trials.
        computed: What `rung_epochs` gives now.
    """
    rungs = rungs_begun_with(trial, computed)
    if trial.user_attrs.get(RUNG_EPOCHS) != rungs:
        study.note(trial.number, RUNG_EPOCHS, rungs)
    return rungs


def rung_epochs(experiment: Experiment, costs: TrialCosts | None) -> Callable[[Config], list[int]]:
    """Returns a function that gives the rung epochs of a configuration, see ``search.scheduler``.

    By epochs, rungs are those of the timeline. By time, the k-th rung is where the defaults reach
    theirs after the same seconds: a trial that costs three times as much has a third of its epochs
    by then. The last rung is always the end of the trial. A trial keeps the rungs that it was begun
    with, see `kept_rungs`.

    Args:
        experiment: The experiment, bounds clamped to the data.
        costs: Prices trials; without it rungs go by epochs.
    """
    scheduler = experiment.defaults().search.scheduler
    largest = largest_timeline(experiment)

    def by_epochs(config: Config) -> list[int]:
        rungs = Timeline.of(config).rungs(
            largest, grace=scheduler.grace, reduction=scheduler.reduction
        )
        return [rung.epoch for rung in rungs]

    if costs is None or scheduler.by == "epochs":
        return by_epochs

    known = costs
    defaults = experiment.defaults()

    def by_time(config: Config) -> list[int]:
        seconds = [known.until(defaults, epoch) for epoch in by_epochs(defaults)]
        epochs = [known.epochs_within(config, each) for each in seconds]
        return [*epochs[:-1], Timeline.of(config).total]

    return by_time
