"""The retrains at the end of a run, in parallel on the slots of the search."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from gsfl_tune.experiment.errors import EnvironmentProblem
from gsfl_tune.run.layout import EPOCHS_FILE, RESULT_FILE, TEST_FILE, VALIDATION_FILE
from gsfl_tune.run.storage import DriverCopy, storage_of
from gsfl_tune.search.observers.base import Watchers
from gsfl_tune.search.observers.forecast import JobsForecast
from gsfl_tune.search.observers.time_left import of_jobs
from gsfl_tune.search.ray_tune.head_watchdog import lifeline
from gsfl_tune.search.ray_tune.heartbeat import Pulses, pulse_of
from gsfl_tune.search.ray_tune.location import place
from gsfl_tune.search.ray_tune.placement import TaskPlaces
from gsfl_tune.search.ray_tune.rank_actors import NodeRanks
from gsfl_tune.search.ray_tune.retry_policy import (
    RetryPolicy,
    halved_notice,
    was_halved_notice,
)
from gsfl_tune.search.ray_tune.run_context import RunContext
from gsfl_tune.search.ray_tune.worker_losses import Failure, failure
from gsfl_tune.search.workers.rank_pool import spread_by
from gsfl_tune.search.workers.retrain import (
    Job,
    load_result,
    run_job,
)
from gsfl_tune.search.workers.settings import WorkerSettings
from gsfl_tune.training.out_of_memory import HALVED

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class JobsOutcome:
    """Holds the results of jobs.

    Attributes:
        results: One per job, in order: the content of its ``result.json``; a mapping with
            ``failed`` for a failed job; None for an interrupted job.
        interrupted: Whether some jobs were interrupted.
    """

    results: list[dict[str, Any] | None]
    interrupted: bool


def run_jobs(
    jobs: Sequence[Job],
    context: RunContext,
    *,
    title: str = "retraining",
    max_failures: int = 3,
) -> JobsOutcome:
    """Trains jobs to their ends; jobs that an earlier driver finished are not run again.

    When the machine fails one (disk, network), the others are stopped as by an interrupt.

    Args:
        jobs: The jobs, each with a directory of its own.
        context: The run.
        title: Shown to the user while the jobs run.
        max_failures: How often a job is restarted after a crash, from its checkpoint. The
            loss of a node does not count.

    Returns:
        The results in the order of the jobs.

    Raises:
        EnvironmentProblem: When the machine failed a job; a second call continues.
    """
    interrupt, costs, storage = context.interrupt, context.costs, context.storage
    watcher = Watchers(*context.watchers)
    jobs = list(jobs)
    results = [load_result(job) for job in jobs]
    waiting = [index for index, result in enumerate(results) if result is None]
    context = context.at_most(max(1, len(waiting)))
    resources = context.resources
    flying: dict[Any, int] = {}
    pulses = Pulses(lambda: [jobs[index].name for index in list(flying.values())])
    remote, places = ray.remote(_run), TaskPlaces()

    def begin(job: Job) -> Any:
        own = resources.of(job.config.model.backbone)
        settings = context.worker_settings(pulses.channel, job.config).model_dump_json()
        return places.begin(remote, own, job.model_dump_json(), settings)

    retries = RetryPolicy(max_failures)
    forecast: JobsForecast | None = None
    if costs is not None:
        forecast, left = of_jobs(jobs, waiting, costs, resources.count)
        forecast.states = pulses.states
        watcher.expects(left)
    watcher.hears(pulses.states)
    watcher.jobs_begin(title, len(jobs), len(jobs) - len(waiting))
    with interrupt.listening(), lifeline(interrupt, watcher.notice), pulses.listening():
        while flying or (waiting and not interrupt.requested):
            while waiting and len(flying) < resources.count and not interrupt.requested:
                index = waiting.pop(0)
                flying[begin(jobs[index])] = index
                if forecast is not None:
                    forecast.started(jobs[index].name)
            ready, _ = ray.wait(list(flying), timeout=_POLL_SECONDS)
            for reference in ready:
                index = flying.pop(reference)
                places.end(reference)
                if forecast is not None:
                    forecast.ended(jobs[index].name)
                result, news = _result(reference)
                if news is not None:
                    watcher.notice(f"{jobs[index].name}: {news}")
                if isinstance(result, Failure):
                    retry = retries.decide(index, result, pieces=jobs[index].pieces)
                    if retry.halved is not None:
                        jobs[index] = jobs[index].model_copy(update={"pieces": HALVED})
                        watcher.notice(halved_notice(jobs[index].name, retry.halved))
                    if retry.notice is not None:
                        watcher.notice(f"{jobs[index].name}: {retry.notice}")
                    if retry.again:
                        waiting.insert(0, index)
                        if forecast is not None:
                            forecast.ended(jobs[index].name, again=True)
                        continue
                    result = {"failed": retry.failure.reason}
                elif result is not None:
                    where = result.pop("place", {})
                    if result.pop("batch_halved", False) and jobs[index].pieces == 1:
                        watcher.notice(was_halved_notice(jobs[index].name))
                    where["job"] = jobs[index].name
                    if costs is not None:
                        job = jobs[index]
                        costs.observe(job.config, {**where, **result}, fit=job.fit)
                    watcher.occupied(where, where.get("seconds", 0.0))
                    if "environment" not in result and storage is not None:
                        result = _brought(storage, jobs[index], result)
                if result is not None and "environment" in result:
                    interrupt.give_up(result["environment"])
                elif result is not None:
                    results[index] = result
                    watcher.job_ended(jobs[index].name, result)
            if interrupt.overdue:
                for reference in flying:
                    ray.cancel(reference, force=True)
                break
            watcher.tick()
    places.end_all()
    watcher.jobs_finish(interrupted=interrupt.requested)
    interrupt.raise_trouble()
    return JobsOutcome(results, interrupted=any(result is None for result in results))


_Told = tuple[dict[str, Any] | None, str | None]
"""Result of a job, and the problem of its storage meanwhile, if any."""


def _run(job: str, settings: str) -> _Told:
    known = WorkerSettings.model_validate_json(settings)
    begun = time.monotonic()
    own = Job.model_validate_json(job)
    spread_by(NodeRanks)
    try:
        with pulse_of(known.channel, own.name):
            result = run_job(own, known)
    except EnvironmentProblem as problem:
        # Returned, not raised: Ray would retry at once.
        return {"environment": str(problem)}, None
    if result is not None:
        result["place"] = place() | {"seconds": time.monotonic() - begun}
    return result, storage_of(known.storage).news() if known.storage is not None else None


def _result(reference: Any) -> tuple[dict[str, Any] | Failure | None, str | None]:
    try:
        told: _Told = ray.get(reference)
    except Exception as error:
        # An error of Ray, or an error of the training as a subclass of Ray's class.
        return failure(f"{type(error).__name__}: {error}"), None
    return told


def _brought(storage: DriverCopy, job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """Returns the result once the job's files are in the run directory."""
    try:
        names = (RESULT_FILE, TEST_FILE, VALIDATION_FILE, EPOCHS_FILE)
        storage.bring(*(job.directory / name for name in names))
    except EnvironmentProblem as problem:
        return {"environment": str(problem)}
    return result
