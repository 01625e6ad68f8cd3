"""The remaining time of a whole run: the current phase and all later ones.

"About 4:10 left" is the time until the tested bundle, not until the end of a phase that the user
does not know.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.heads import CONTROL, GROUPED_HEADS
from gsfl_tune.run import StudyName
from gsfl_tune.search.costs.time_budget import SearchTime
from gsfl_tune.search.costs.time_plan import control_of
from gsfl_tune.search.costs.trial_costs import TrialCosts
from gsfl_tune.search.observers.base import Watcher
from gsfl_tune.search.observers.forecast import JobsForecast, StudyForecast, makespan, rest_of
from gsfl_tune.search.samplers.configurations import Anywhere
from gsfl_tune.search.study.pareto import candidates
from gsfl_tune.search.workers.retrain import Job

if TYPE_CHECKING:
    from gsfl_tune.search.study.study import Study

Left = Callable[[], float]
# The first trials start more slowly: Ray itself starts, and the page cache is empty.
_MOST_START = 15.0


def after_search(
    costs: TrialCosts,
    config: Config,
    slots: int,
    pace: float = 1.0,
    finalists: Sequence[Config] = (),
) -> float:
    """Returns the expected seconds of race, retrains and evidence.

    Args:
        costs: Prices trainings.
        config: The best configuration so far, else the defaults.
        slots: Number of parallel trainings.
        pace: Current ratio of training times to their prices.
        finalists: The best configurations so far; ones that are missing cost as much as the best.
    """
    search = config.search
    racing = [*finalists, *[config] * search.finalists][: search.finalists]
    training = statistics.fmean(costs.seconds(each) + costs.answers(each) for each in racing)
    # The race ends with the first seed or with the last one.
    seeds = (1 + search.final_seeds) / 2
    race = 0.0
    if search.finalists > 1:
        races = 2 if search.control == "tuned" and config.model.head in GROUPED_HEADS else 1
        race = races * max(1.0, search.finalists * seeds / slots) * training
    finals = race + _retrains(costs, config, slots)
    evidence = costs.evidence(config, seeds=search.final_seeds, slots=slots)
    # Race and retrains each begin with process starts.
    return pace * finals + 2 * min(costs.start, _MOST_START) + evidence


def after_jobs(costs: TrialCosts, jobs: Sequence[Job], slots: int, pace: float = 1.0) -> float:
    """Returns the seconds of the evidence, and of what follows a race if the jobs are one.

    Args:
        costs: Prices trainings.
        jobs: Running or waiting jobs; those of a race are of the same seeds.
        slots: Number of parallel trainings.
        pace: Current ratio of training times to their prices.
    """
    config = jobs[0].config
    evidence = costs.evidence(config, seeds=config.search.final_seeds, slots=slots)
    if any(job.fit != "train" for job in jobs):
        return evidence
    # A candidate has one directory, with one below it for each seed.
    racing = {job.directory.parent: job.config for job in jobs}.values()
    last = max(job.seed - job.config.training.seed for job in jobs)
    seeds = max(0, config.search.final_seeds - last)
    each = [costs.seconds(one) + costs.answers(one) for one in racing]
    # The race ends with these seeds or with the last ones.
    race = seeds / 2 * makespan([], each, slots)
    # Any of them may win.
    retrains = statistics.fmean(_retrains(costs, one, slots) for one in racing)
    starts = (1 + seeds / 2) * min(costs.start, _MOST_START)
    return pace * (race + retrains) + starts + evidence


def _retrains(costs: TrialCosts, config: Config, slots: int) -> float:
    """Returns the price of the retrains of winner and control: a plain head costs less."""
    search = config.search
    own, every = costs.seconds(config), search.final_seeds
    # Last answers of a retrain, and of a training that is validated.
    tested, answered = costs.answers(config, "train+validation"), costs.answers(config)
    last = own * costs.retrain + tested
    jobs = [last] * every
    # A candidate that did not race is validated beside the retrains, with the winner's seeds.
    validated = every if search.finalists == 1 else math.ceil((1 + every) / 2)
    if search.finalists == 1:
        jobs += [own + answered] * validated
    if search.control != "off" and config.model.head in GROUPED_HEADS:
        model = config.model.model_copy(update={"head": CONTROL})
        plain = costs.seconds(config.model_copy(update={"model": model}))
        jobs += [plain * costs.retrain + tested] * every
        if search.control == "matched":
            jobs += [plain + answered] * validated
    return makespan([], jobs, slots)


def typical(experiment: Experiment, count: int = 16) -> list[Config]:
    """Draws configurations from the whole space, as a sample of the costs of future trials.

    Args:
        experiment: The experiment.
        count: How many to draw; invalid configurations are left out.
    """
    found = []
    for seed in range(count):
        with suppress(ValueError, UserError):
            drawn = experiment.space.suggest(Anywhere(np.random.default_rng(seed)))
            found.append(experiment.configure(drawn))
    return found or [experiment.defaults()]


def leading(study: Study, experiment: Experiment) -> Callable[[], list[Config]]:
    """Makes a function that returns the configurations of the best complete trials, in order.

    Trials are ranked only after another one is complete: the time left is asked for often.

    Args:
        study: The study.
        experiment: The experiment; it has the number of finalists, which are the most.
    """
    count = experiment.defaults().search.finalists
    known: tuple[int, list[Config]] = (-1, [])

    def found() -> list[Config]:
        nonlocal known
        complete = study.counts()["COMPLETE"]
        if complete != known[0]:
            best = candidates(study)[:count]
            known = complete, [experiment.configure(trial.params) for trial in best]
        return known[1]

    return found


def of_study(
    experiment: Experiment,
    name: StudyName,
    costs: TrialCosts | None,
    limit: SearchTime | None,
    *,
    budget: int,
    slots: int,
    best: Callable[[], Sequence[Config]],
) -> tuple[Watcher, Left | None]:
    """Makes the estimate of a run's remaining time during a study.

    Args:
        experiment: The experiment.
        name: Name of the study.
        costs: Prices trials; without them there is no estimate.
        limit: Time limit for the trials.
        budget: Number of trials in all.
        slots: Number of parallel trials.
        best: Returns the best configurations so far, in order; none of a trial that may go on.

    Returns:
        A watcher that must receive every change, and a function that returns the seconds left.
    """
    if costs is None:
        return Watcher(), None
    defaults = experiment.defaults()
    forecast = StudyForecast(
        costs,
        experiment.configure,
        typical(experiment),
        budget,
        slots,
        replicates=defaults.search.replicates,
    )
    another = control_of(experiment) == "tuned" and name == "search"

    def left() -> float:
        ahead, trials = best(), forecast.left()
        config = ahead[0] if ahead else defaults
        # A later trial may win, with the expected cost of trials here.
        dearer = 1.0 if limit is not None else forecast.winner(costs.seconds(config))
        later = after_search(costs, config, slots, dearer * forecast.pace, ahead)
        if limit is None:
            return trials + later + (forecast.whole() if another else 0.0)
        time = limit.left(config)
        rest = max(0.0, limit.budget.search_seconds(config) - time) if another else 0.0
        return (min(trials, time) if limit.counted else time) + later + rest

    return forecast, left


def of_jobs(
    jobs: Sequence[Job], waiting: Sequence[int], costs: TrialCosts, slots: int
) -> tuple[JobsForecast, Left]:
    """Makes the estimate of a run's remaining time during retrains.

    Args:
        jobs: All jobs.
        waiting: Indices of unfinished jobs.
        costs: Prices the jobs.
        slots: Number of parallel jobs.

    Returns:
        An object that must receive every change, and a function that returns the seconds left.
    """
    known = {job.name: job for job in jobs}

    def rest(name: str, epochs: float) -> float:
        config, fit = known[name].config, known[name].fit
        return rest_of(costs, config, epochs, fit) + costs.answers(config, fit)

    forecast = JobsForecast(rest, slots, [jobs[index].name for index in waiting], costs=costs)

    def left() -> float:
        trainings = forecast.left()
        return trainings + after_jobs(costs, jobs, slots, forecast.pace)

    return forecast, left
