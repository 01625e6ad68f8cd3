"""The rehearsal of the largest model in the slot of a trial."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ray
from ray.exceptions import RayError, WorkerCrashedError

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.models import BackboneError
from gsfl_tune.run.storage import RunAddress
from gsfl_tune.search.ray_tune.heartbeat import asked_of_workers, pulse_of
from gsfl_tune.search.ray_tune.resources import Resources
from gsfl_tune.search.ray_tune.timed_steps import timed_steps
from gsfl_tune.search.workers.machine_faults import environment_problem
from gsfl_tune.search.workers.workspaces import open_workspace
from gsfl_tune.training.out_of_memory import out_of_memory
from gsfl_tune.training.pricing import Measured
from gsfl_tune.training.pricing.cost import largest_case
from gsfl_tune.training.pricing.one_step import largest_config, of_a_process, rehearse
from gsfl_tune.training.timeline import STAGES

# Marks an error of the machine in the slot's answer.
_MACHINE = "machine: "
_NAME = "rehearsal"


def rehearse_largest(
    experiment: Experiment,
    *,
    resources: Resources,
    side: int | None = None,
    cache_dir: Path | None = None,
    storage: RunAddress | None = None,
    least: float = 0.0,
) -> list[Measured]:
    """Takes optimiser steps of the largest model of a space in the slot of a trial.

    A space without a finetune stage has small models, which `check` has priced: they are not
    rehearsed on a CPU. Backbones with resources of their own are rehearsed in these. A model that
    processes divide among themselves is not: one process has no room for it.

    Args:
        experiment: The experiment.
        resources: Resources of one trial, and how many fit.
        side: Side of the stored squares, in pixels.
        cache_dir: Root of the nodes' caches.
        storage: Second location of the run.
        least: Seconds for which steps are timed, per stage; 0: one step, as a test.

    Returns:
        What the steps took, as first prices of trainings.

    Raises:
        UserError: When the step does not fit.
        EnvironmentProblem: When weights, caches or disk fail.
    """
    if max(experiment.values("training.finetune.epochs")) == 0 and resources.gpu == 0:
        return []
    try:
        largest = list(largest_of_each_kind(experiment, resources))
    except BackboneError as error:
        raise UserError(f"model.backbone: {error}") from error
    found: list[Measured] = []
    for config, own in largest:
        if not own.shard:
            found += _rehearse_in_a_slot(config, own, side, cache_dir, storage, least)
    return found


def largest_of_each_kind(
    experiment: Experiment, resources: Resources
) -> Iterator[tuple[Config, Resources]]:
    """Yields the largest configuration for each kind of slot, and the slot."""
    kinds: dict[tuple[float, float, int, bool], list[str]] = {}
    names = experiment.values("model.backbone")
    for name in names:
        own = resources.of(name)
        kinds.setdefault((own.cpu, own.gpu, own.workers, own.shard), []).append(name)
    if len(kinds) == 1:
        yield largest_config(experiment), resources.of(names[0])
        return
    for members in kinds.values():
        parts = [experiment.fixed({"model.backbone": name}) for name in members]
        part = max(parts, key=lambda each: largest_case(each)[1].bytes)
        yield largest_config(part), resources.of(members[0])


def _rehearse_in_a_slot(
    config: Config,
    resources: Resources,
    side: int | None,
    cache_dir: Path | None,
    storage: RunAddress | None,
    least: float,
) -> list[Measured]:
    task = ray.remote(_rehearse).options(
        num_cpus=resources.cpu, num_gpus=resources.gpu, max_retries=0
    )
    found: list[Measured] = []
    try:
        text = config.model_dump_json()
        division = resources.gpu > 0, resources.threads, resources.workers
        words = f"one optimiser step of the largest model ({config.model.extractor})"
        with asked_of_workers(words, [_NAME]) as channel:
            complaint, found = ray.get(
                task.remote(text, side, cache_dir, storage, channel, division, least)
            )
    except (WorkerCrashedError, ray.exceptions.OutOfMemoryError):
        complaint = "its process was ended, most likely for lack of memory"
    except RayError as error:
        lines = str(error).strip().splitlines()
        complaint = lines[-1] if lines else repr(error)
    if complaint and complaint.startswith(_MACHINE):
        raise EnvironmentProblem(complaint.removeprefix(_MACHINE))
    if complaint:
        model, stages = config.model, [getattr(config.training, each.name) for each in STAGES]
        stage = [each for each in stages if each.epochs][-1]
        raise UserError(
            f"the largest model of the space cannot take a step: {complaint}\n"
            f"  {model.extractor} at {config.data.image_size} px, {model.pooling} pooling, "
            f"latent_dim {model.latent_dim}, batch_size {stage.batch_size}\n"
            "  allowed: smaller batches (training.finetune.accumulate keeps the effective "
            "size), images or models, or more resources a trial"
        )
    return found


def _rehearse(
    config: str,
    side: int | None,
    cache_dir: Path | None,
    storage: RunAddress | None,
    channel: str,
    division: tuple[bool, int, int],
    least: float,
) -> tuple[str | None, list[Measured]]:
    """Returns what is wrong, and what was timed."""
    gpu, threads, workers = division
    parsed = Config.model_validate_json(config)
    try:
        with pulse_of(channel, _NAME):
            workspace = open_workspace(parsed.data, side, cache_dir, storage)
            if least:
                found = timed_steps(
                    parsed, workspace, gpu=gpu, threads=threads, workers=workers, least=least
                )
                return None, found
            rehearse(of_a_process(parsed, workers), workspace)
    except Exception as error:
        complaint = out_of_memory(error)
        if complaint is not None:
            return f"out of memory ({complaint})", []
        if not isinstance(error, UserError | OSError):
            raise
        problem = environment_problem(error)
        return str(error) if problem is None else _MACHINE + str(problem), []
    return None, []
