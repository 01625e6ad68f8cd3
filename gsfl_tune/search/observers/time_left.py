"""What is left of a whole run: of what is under way, and of what comes after it.

"About 4:10 left" is the time until the tested bundle, not until the end of a phase that a user has
not heard of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.experiment.config import Config
from gsfl_tune.run import StudyName
from gsfl_tune.search.costs.time_budget import SearchTime
from gsfl_tune.search.costs.trial_costs import TrialCosts
from gsfl_tune.search.observers.base import Watcher
from gsfl_tune.search.observers.forecast import JobsForecast, StudyForecast, rest_of
from gsfl_tune.search.samplers.configurations import Anywhere
from gsfl_tune.search.workers.retrain import Job

Left = Callable[[], float]
# Those of the first trials take longer: Ray itself starts, and nothing is in the page cache yet.
_MOST_START = 15.0


def after_search(costs: TrialCosts, config: Config, slots: int, pace: float = 1.0) -> float:
    """Seconds of the race, the retrains and the evidence, as they are to be expected.

    Args:
        costs: Prices trainings.
        config: The best so far, else the defaults.
        slots: Trainings at once.
        pace: How many times as long as their price trainings take now.
    """
    search, training = config.search, costs.seconds(config)
    # The race ends with the first seed or with the last one.
    seeds = (1 + search.final_seeds) / 2
    race = 0.0
    if search.finalists > 1:
        races = 2 if search.control == "tuned" and config.model.head == "gsfl" else 1
        race = races * max(1.0, search.finalists * seeds / slots) * training
    finals = race + _retrains(costs, config, slots)
    evidence = costs.evidence(config, seeds=search.final_seeds, slots=slots)
    # Both begin with processes that start.
    return pace * finals + 2 * min(costs.start, _MOST_START) + evidence


def after_jobs(costs: TrialCosts, jobs: Sequence[Job], slots: int, pace: float = 1.0) -> float:
    """Seconds of the retrains after a race, where it is one, and of the evidence.

    Args:
        costs: Prices trainings.
        jobs: That are under way or wait.
        slots: Trainings at once.
        pace: How many times as long as their price trainings take now.
    """
    config = jobs[0].config
    evidence = costs.evidence(config, seeds=config.search.final_seeds, slots=slots)
    if any(job.fit != "train" for job in jobs):
        return evidence
    return pace * _retrains(costs, config, slots) + min(costs.start, _MOST_START) + evidence


def _retrains(costs: TrialCosts, config: Config, slots: int) -> float:
    """Seconds of the retrains of winner and control by their prices: a plain head costs less."""
    search = config.search
    own, every = costs.seconds(config), search.final_seeds
    # Those who were not raced are validated beside the retrains, with the seeds of who was.
    seeds = every if search.finalists == 1 else (1 + every) / 2
    total = own * (every * costs.retrain + (seeds if search.finalists == 1 else 0))
    if search.control != "off" and config.model.head == "gsfl":
        model = config.model.model_copy(update={"head": "plain"})
        validated = seeds if search.control == "matched" else 0
        plain = costs.seconds(config.model_copy(update={"model": model}))
        total += plain * (every * costs.retrain + validated)
    return max(own * costs.retrain, total / slots)


def typical(experiment: Experiment, count: int = 16) -> list[Config]:
    """Configurations from anywhere in a space: trials to come cost what these do, about.

    Args:
        experiment: The experiment.
        count: How many to draw; those that the configuration refuses are left out.
    """
    found = []
    for seed in range(count):
        with suppress(ValueError, UserError):
            drawn = experiment.space.suggest(Anywhere(np.random.default_rng(seed)))
            found.append(experiment.configure(drawn))
    return found or [experiment.defaults()]


def of_study(
    experiment: Experiment,
    name: StudyName,
    costs: TrialCosts | None,
    limit: SearchTime | None,
    *,
    budget: int,
    slots: int,
    best: Callable[[], Config],
) -> tuple[Watcher, Left | None]:
    """Who estimates what is left of a run while a study goes on.

    Args:
        experiment: The experiment.
        name: Of the study.
        costs: Prices trials; without them there is no estimate.
        limit: When the time for trials is over.
        budget: Trials in all.
        slots: Trials at once.
        best: The best configuration so far, else the defaults.

    Returns:
        A watcher that has to be told of every change, and what says how many seconds are left.
    """
    if costs is None:
        return Watcher(), None
    forecast = StudyForecast(costs, experiment.configure, typical(experiment), budget, slots)
    config = experiment.defaults()
    tuned = config.search.control == "tuned" and "gsfl" in experiment.values("model.head")
    another = tuned and name == "search"

    def left() -> float:
        config, trials = best(), forecast.left()
        # Until the last trial the winner may be another one, which costs what trials here do.
        dearer = 1.0 if limit is not None else forecast.winner(costs.seconds(config))
        later = after_search(costs, config, slots, dearer * forecast.pace)
        if limit is None:
            return trials + later + (forecast.whole() if another else 0.0)
        time = limit.left(config)
        rest = max(0.0, limit.budget.search_seconds(config) - time) if another else 0.0
        return (min(trials, time) if limit.counted else time) + later + rest

    return forecast, left


def of_jobs(
    jobs: Sequence[Job], waiting: Sequence[int], costs: TrialCosts, slots: int
) -> tuple[JobsForecast, Left]:
    """Who estimates what is left of a run while retrains go on.

    Args:
        jobs: All of them.
        waiting: Which ones are not done.
        costs: Prices them.
        slots: Jobs at once.

    Returns:
        What has to be told of every change, and what says how many seconds are left.
    """
    known = {job.name: job for job in jobs}

    def rest(name: str, epochs: float) -> float:
        return rest_of(costs, known[name].config, epochs, known[name].fit)

    forecast = JobsForecast(rest, slots, [jobs[index].name for index in waiting], costs=costs)

    def left() -> float:
        trainings = forecast.left()
        return trainings + after_jobs(costs, jobs, slots, forecast.pace)

    return forecast, left
