"""The run of a study on Ray Tune, from its beginning or from the state that was left."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray import tune

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.units import byte_count, seconds
from gsfl_tune.run import RunDirectory, StudyName
from gsfl_tune.run.layout import CHECKPOINT_FILE
from gsfl_tune.search.control.interrupt import Interrupt
from gsfl_tune.search.control.stop_conditions import Clock, Limits, Stopwatch
from gsfl_tune.search.costs.relative_price import RelativePrice
from gsfl_tune.search.costs.time_budget import SearchTime
from gsfl_tune.search.costs.trial_costs import TrialCosts
from gsfl_tune.search.observers.base import Watchers
from gsfl_tune.search.observers.checkpoint_retention import CheckpointKeeper
from gsfl_tune.search.observers.time_left import leading, of_study
from gsfl_tune.search.observers.trials_parquet import TrialTable
from gsfl_tune.search.ray_tune.head_watchdog import lifeline
from gsfl_tune.search.ray_tune.heartbeat import TrialPulses
from gsfl_tune.search.ray_tune.patches import (
    light_snapshots,
    memory_monitor,
    own_credentials,
    quiet,
)
from gsfl_tune.search.ray_tune.placement import placement_group_of
from gsfl_tune.search.ray_tune.run_context import RunContext
from gsfl_tune.search.ray_tune.rung_epochs import kept_rungs, largest_timeline, rung_epochs
from gsfl_tune.search.ray_tune.scheduler import AshaScheduler, create_asha
from gsfl_tune.search.ray_tune.searcher import StudySearcher
from gsfl_tune.search.ray_tune.spared_work import lean_ray
from gsfl_tune.search.ray_tune.storage_watch import tell_finished
from gsfl_tune.search.ray_tune.trainable import GsflTrainable
from gsfl_tune.search.ray_tune.trial_timeout import Deadlines
from gsfl_tune.search.study.first_trials import enqueue_first_trials
from gsfl_tune.search.study.goals import Goals
from gsfl_tune.search.study.handed_out import Asked
from gsfl_tune.search.study.prefetch import Ahead
from gsfl_tune.search.study.reconcile import reconcile, study_signature
from gsfl_tune.search.study.study import Study
from gsfl_tune.search.workers.replicates import Replicates, rows_of
from gsfl_tune.search.workers.task import Task
from gsfl_tune.search.workers.tensorboard_events import hparams
from gsfl_tune.training.out_of_memory import HALVED
from gsfl_tune.training.pricing.cost import checkpoint_bytes
from gsfl_tune.training.timeline import pretraining_rungs


@dataclass(frozen=True)
class StudyOutcome:
    """Holds the result of a study.

    Attributes:
        study: The study, for its trials, counts and ranking.
        interrupted: Whether it was stopped before its budget was used.
        ended: The limit that ended it early, in words.
    """

    study: Study
    interrupted: bool
    ended: str | None = None


def open_study(
    experiment: Experiment,
    run: RunDirectory,
    name: StudyName = "search",
    *,
    ahead: bool = False,
    costs: TrialCosts | None = None,
) -> Study:
    """Opens a study of a run, or creates it.

    Args:
        experiment: The experiment, bounds clamped to the data.
        run: The run.
        name: ``search`` or ``control``.
        ahead: Whether a separate process computes proposals ahead; then call `Study.close`.
        costs: Prices trials for ``search.sampler.cost_ratio``; without it all cost the same.

    Raises:
        UserError: When the run's study was begun with another experiment.
    """
    search = experiment.defaults().search
    return Study(
        run.journal,
        name,
        experiment.space,
        goals=Goals.of(search),
        sampler=search.sampler,
        seed=search.seed,
        signature=study_signature(experiment),
        ahead=Ahead(experiment.to_yaml(), run.journal, name, search.sampler.name)
        if ahead and not search.objectives
        else None,
        price=None if costs is None else RelativePrice(experiment, costs),
    )


def run_study(
    experiment: Experiment,
    context: RunContext,
    name: StudyName = "search",
    *,
    trials: int | None = None,
    feature_dim: int | None = None,
    clock: Clock | None = None,
    trainable: type[tune.Trainable] = GsflTrainable,
    limit: SearchTime | None = None,
) -> StudyOutcome:
    """Searches until the budget is used. Trials that the journal has finished are not run again.

    The caller holds the run's lock (`run_lock`) and is connected to Ray.

    Args:
        experiment: The experiment, bounds clamped to the data.
        context: The run.
        name: ``search``, or ``control`` for the control's own study.
        trials: Budget, finished trials included; default ``search.trials``.
        feature_dim: Size of the default model's feature, for the published setting.
        clock: Time of the study with earlier drivers, for ``search.time_budget``; default:
            this call's time alone.
        trainable: Class that Ray runs.
        limit: Time limit for the trials; default: when the study alone has taken
            ``search.time_budget``.

    Returns:
        The study, and whether it was interrupted.

    Raises:
        EnvironmentProblem: When the machine failed a trial (disk, network). Unfinished trials
            stay RUNNING in the study.
        UserError: When the study cannot be continued with this experiment.
    """
    run, interrupt, storage, costs = (
        context.run,
        context.interrupt,
        context.storage,
        context.costs,
    )
    study = open_study(experiment, run, name, ahead=True, costs=costs)
    search = experiment.defaults().search
    timeout = None if search.trial_timeout is None else seconds(search.trial_timeout)
    largest = largest_timeline(experiment)
    scheduler = search.scheduler
    options = {"grace": scheduler.grace, "reduction": scheduler.reduction}
    first_end = len(largest.rungs(largest, **options)) - 1
    replicates = Replicates.of(search)
    last_rung = replicates.last_rung(first_end)
    rungs_of, by_time = rung_epochs(experiment, costs), scheduler.by == "time"
    learned = pretraining_rungs(experiment)
    pretrains = True in experiment.values("training.pretrain")
    if storage is not None:
        tell_finished(study, experiment, run, storage, rungs_of)
    again = reconcile(study, last_rung).again
    clock = clock or Stopwatch()
    slots, defaults = context.resources.count, experiment.defaults()
    notices = enqueue_first_trials(
        study,
        experiment,
        feature_dim,
        price=costs.seconds if costs is not None else None,
        budget=limit.slot_seconds(defaults, slots, clock.seconds) if limit is not None else None,
        trials=limit.trials(search.trials) if limit is not None else None,
    )
    table = TrialTable(run, study, storage)
    keeper = CheckpointKeeper(
        run,
        study,
        search.keep_checkpoints,
        None if search.disk_budget is None else byte_count(search.disk_budget),
        interrupt.give_up,
        storage.discard if storage is not None else lambda path: None,
        partial(storage.copies, run.trials(name), CHECKPOINT_FILE)
        if storage is not None
        else tuple,
        checkpoint_bytes(experiment) if storage is not None and search.disk_budget else 0,
        on_dropped=lambda number: watcher.ended(number),
    )
    pulses = TrialPulses()
    watcher = Watchers(keeper, table, pulses, *context.watchers)

    def best_config() -> Config:
        best = study.best()
        return experiment.defaults() if best is None else experiment.configure(best.params)

    def empty() -> bool:
        if study.goals.several:  # a stopped trial is not on the front
            return study.best() is None
        return not any(study.rungs(trial) for trial in study.trials())

    limits = Limits(
        search,
        study,
        clock,
        interrupt,
        None if limit is None else lambda: limit.over(best_config(), empty=empty()),
        None if limit is None else (limit.budget.plan.budget, limit.share),
    )

    def over() -> StudyOutcome:
        if limits.reason is not None or not interrupt.requested:
            for number in study.prune_paused():
                watcher.ended(number)
        stopped = limits.settle()
        for number in stopped:
            watcher.ended(number)
        if limits.reason is not None:
            more = f"; {len(stopped)} running trial(s) stopped" if stopped else ""
            watcher.notice(f"{study.name}: {limits.reason}{more}")
        watcher.finish(interrupted=interrupt.requested)
        interrupt.raise_trouble()
        return StudyOutcome(study, interrupt.requested, limits.reason)

    def task(asked: Asked) -> Task:
        config = experiment.configure(asked.params)
        trial = study.trial(asked.number)
        # The last rung is not told without its trial's end.
        reported = min(max(asked.rungs, default=-len(learned) - 1) + 1, last_rung)
        return Task(
            **dict(context.worker_settings(pulses.channel, config)),
            number=asked.number,
            config=config,
            directory=run.trial(name, asked.number),
            metric=study.metric,
            others=list(study.goals.others),
            early_latency=study.goals.early_latency,
            rungs=kept_rungs(study, trial, rungs_of(config)) if by_time else rungs_of(config),
            reduction=scheduler.reduction,
            reported=reported,
            pretraining=learned,
            params=asked.params,
            shown=hparams(study.space, asked.params),
            pieces=HALVED if trial.user_attrs.get("batch_halved") else 1,
            timeout=timeout,
            replicates=replicates,
            finished=[row for k, row in rows_of(trial).items() if k < reported],
        )

    asha = create_asha(study, scheduler, last_rung + 1, learned)
    budget = trials or search.trials
    # The last trials share the GPUs among themselves only.
    unfinished = len(again) + len(study.paused())
    resources = context.resources.at_most(max(1, unfinished + budget - study.created()))
    best = leading(study, experiment)
    forecast, left = of_study(
        experiment, name, costs, limit, budget=budget, slots=resources.count, best=best
    )
    watcher = Watchers(forecast, watcher)
    if left is not None:
        watcher.expects(left)
    watcher.hears(pulses.states)
    uncounted = limit is not None and not limit.counted
    watcher.begin(study, None if uncounted else budget, resources.count)
    for notice in notices:
        watcher.notice(notice)
    waiting = study.counts()["WAITING"] - max(0, budget - study.created())
    if waiting > 0:
        watcher.notice(f"{waiting} enqueued configuration(s) wait for more search.trials")
    done = not unfinished and study.created() >= budget
    if not done:
        limits.look()
    if done or limits.reason is not None:
        with closing(study):
            return over()
    searcher = StudySearcher(
        study,
        budget,
        task,
        again=again,
        max_failures=search.max_failures,
        watcher=watcher,
        closed=lambda: interrupt.stopping,
        on_trouble=interrupt.give_up,
        costs=costs,
        resources=resources,
        promotable=asha.promotable if asha is not None and scheduler.promote else None,
    )
    study.on_loss(watcher.notice)

    def away() -> float:
        return storage.storage.away_seconds if storage is not None else 0.0

    alive = lifeline(interrupt, watcher.notice)
    with interrupt.listening(), closing(study), alive, pulses.listening():
        begun = False
        # Once more if a trial must be restarted after Ray was told that no more trials follow.
        while not begun or searcher.unfinished:
            begun = True
            _fit(
                tune.with_resources(trainable, placement_group_of),
                searcher,
                AshaScheduler(
                    asha,
                    searcher,
                    study.goals,
                    first_end if replicates.count > 1 else math.inf,
                ),
                _Stopper(interrupt, watcher.tick, limits.look),
                # Pretrainings do not count, and only the worker knows how long they take.
                Deadlines(None if pretrains else timeout, searcher, away),
                run=run,
                concurrent=resources.count,
            )
        return over()


class _Stopper(tune.Stopper):
    """Watches the clock: Ray calls it after every event."""

    def __init__(self, interrupt: Interrupt, *ticks: Callable[[], None]) -> None:
        self._interrupt = interrupt
        self._ticks = ticks

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        for tick in self._ticks:
            tick()
        return self._interrupt.overdue

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _fit(
    trainable: Any,
    searcher: StudySearcher,
    scheduler: AshaScheduler,
    stopper: tune.Stopper,
    deadlines: Deadlines,
    *,
    run: RunDirectory,
    concurrent: int,
) -> None:
    # Ray requires a directory that every node sees; it is deleted after the fit.
    parent = run.path / ".ray"
    parent.mkdir(parents=True, exist_ok=True)
    storage = tempfile.mkdtemp(dir=parent)
    try:
        with quiet(), light_snapshots(), memory_monitor(), own_credentials(), lean_ray():
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    num_samples=-1,
                    search_alg=searcher,
                    scheduler=scheduler,
                    max_concurrent_trials=concurrent,
                    reuse_actors=True,
                    trial_name_creator=_name,
                    trial_dirname_creator=_name,
                ),
                run_config=tune.RunConfig(
                    name="fit",
                    storage_path=storage,
                    stop=stopper,
                    callbacks=[deadlines],
                    verbose=0,
                    # The searcher hands out lost trials again.
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(
                        checkpoint_frequency=0, checkpoint_at_end=False
                    ),
                ),
            ).fit()
    finally:
        # Ray's threads may still be writing into it.
        for _ in range(10):
            shutil.rmtree(parent, ignore_errors=True)
            if not parent.exists():
                break
            time.sleep(0.2)


def _name(trial: Any) -> str:
    return f"trial-{trial.config['number']}-{trial.trial_id}"
