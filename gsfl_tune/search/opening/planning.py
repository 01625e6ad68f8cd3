"""The plan of a time budget, from epochs that are timed in the slots of trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from gsfl_tune.activity import activity
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.experiment.fields import leaves
from gsfl_tune.experiment.model_config import TWO_STREAMS, joined_names
from gsfl_tune.experiment.units import seconds
from gsfl_tune.models.arithmetic import backbone_work
from gsfl_tune.run.storage import RunAddress
from gsfl_tune.search.costs.time_plan import Asked, Prices, TimePlan, control_of, make_plan
from gsfl_tune.search.costs.trial_costs import TrialCosts
from gsfl_tune.search.ray_tune.heartbeat import asked_of_workers, pulse_of
from gsfl_tune.search.ray_tune.resources import Resources
from gsfl_tune.search.ray_tune.timed_steps import timed_steps
from gsfl_tune.search.study.goals import Goals
from gsfl_tune.search.workers.machine_faults import environment_problem
from gsfl_tune.search.workers.workspaces import open_workspace
from gsfl_tune.training import Workspace, resolve_device
from gsfl_tune.training.caches.teacher import teacher_sees
from gsfl_tune.training.precision import prefix_uses_bf16
from gsfl_tune.training.pricing.calibrate import measure_frozen
from gsfl_tune.training.pricing.cost import teachers
from gsfl_tune.training.pricing.passes import feature_passes, strengths
from gsfl_tune.training.pricing.prefix_caches import prefix_caches

# Slots that are timed in parallel: neighbours compete for memory bandwidth.
_MEASURED_SLOTS = 8
# Seconds of steps per stage.
_SECONDS = 2.0
# Share of the budget for shared preparation: above it, only one backbone is searched.
_MOST_SHARED = 0.25
# With fewer epochs of finetuning than this, fewer blocks are trained instead.
_ENOUGH_EPOCHS = 6
_SIZES = ("data.image_size", "data.eval_image_size")


@dataclass(frozen=True)
class Frozen:
    """Holds how fast a node runs the frozen default backbone.

    Attributes:
        rate: Images per second for features.
        prefix_rate: Images per second for activations before the trained blocks.
        making: Seconds to make the fast copy.
    """

    rate: float
    prefix_rate: float
    making: float


def plan_time(
    experiment: Experiment,
    workspace: Workspace,
    resources: Resources,
    costs: TrialCosts,
    *,
    spent: Callable[[], float],
    cache_dir: Path | None = None,
    storage: RunAddress | None = None,
) -> TimePlan | None:
    """Measures and plans; returns None where the experiment has no time budget.

    Args:
        experiment: The experiment; its automatic values are planned.
        workspace: Its data.
        resources: Resources of one trial, and how many fit.
        costs: Receives the measurements.
        spent: Returns the seconds of the run until now. What is measured for the plan counts.
        cache_dir: Root of the nodes' caches.
        storage: Second location of the run.

    Raises:
        UserError: When the budget is too small for one complete training.
        EnvironmentProblem: When the machine fails.
    """
    search = experiment.defaults().search
    if search.time_budget is None:
        return None
    assumed = experiment.provisional()
    config = assumed.defaults()
    side = workspace.dataset.pool.side
    # Prices are those of the defaults, and so is the number of slots.
    resources = resources.of(config.model.backbone)
    frozen = _measure(config, resources, costs, side, cache_dir, storage)
    automatic = experiment.automatic

    def given(path: str, value: int) -> int | None:
        return None if path in automatic else value

    finalists = given("search.finalists", search.finalists)
    if finalists is None and search.folds:
        finalists = 1  # the best mean wins, without a race
    asked = Asked(
        head_epochs=given("training.head.epochs", config.training.head.epochs),
        finetune_epochs=given("training.finetune.epochs", longest(experiment)),
        finalists=finalists,
        final_seeds=given("search.final_seeds", search.final_seeds),
        control=control_of(experiment),
        grace=search.scheduler.grace if search.scheduler.name == "asha" else None,
        replicates=search.replicates,
        reduction=search.scheduler.reduction,
        several=Goals.of(search).several,
    )
    budget = seconds(search.time_budget)

    def plan(narrowed: Experiment) -> TimePlan:
        narrowed = _fewer_preparations(narrowed, workspace, frozen, budget)
        prices = prices_of(narrowed, workspace, costs, frozen, resources.count)
        made = make_plan(budget, spent(), resources.count, prices, asked)
        only = {
            path: narrowed.values(path)[0]
            for path in _prepared_paths()
            if narrowed.values(path) != assumed.values(path)
        }
        return replace(made, only=only, automatic=sorted(automatic))

    with activity("planning what fits into the time"):
        return _longest_plan(assumed, plan)


def _longest_plan(experiment: Experiment, plan: Callable[[Experiment], TimePlan]) -> TimePlan:
    """Returns the plan of the whole space, or of a narrower one if only that has time to finetune.

    One block in a third of the time is worth more than two blocks that never finish.
    """
    problem: UserError | None = None
    best: TimePlan | None = None
    for narrowed in _with_fewer_blocks(experiment):
        try:
            found = plan(narrowed)
        except UserError as error:
            problem = problem or error
            continue
        if best is None or found.finetune_epochs > best.finetune_epochs:
            best = found
        if best.finetune_epochs >= _ENOUGH_EPOCHS:
            break
    if best is None:
        assert problem is not None
        raise problem
    return best


def _with_fewer_blocks(experiment: Experiment) -> Iterator[Experiment]:
    """Yields the experiment unchanged, then with the fewest blocks that it may train."""
    yield experiment
    path = "training.finetune.blocks"
    counts = [each for each in experiment.values(path) if isinstance(each, int)]
    if len(experiment.values(path)) > 1 and counts and path in experiment.space.alternatives:
        yield experiment.fixed({path: min(counts)})


def longest(experiment: Experiment) -> int:
    """Returns the most epochs that a finetune stage of the experiment can have."""
    return int(max(experiment.values("training.finetune.epochs")))


def prices_of(
    experiment: Experiment,
    workspace: Workspace,
    costs: TrialCosts,
    frozen: Frozen,
    slots: int,
) -> Prices:
    """Returns what trainings with the defaults cost, and what all of them share.

    Args:
        experiment: The experiment.
        workspace: Its data.
        costs: With measured steps.
        frozen: How fast the frozen backbone is.
        slots: Number of parallel trials.
    """
    config = experiment.defaults()
    works = {work.stage: work for work in costs.work(config)}
    once, finetune_once, view_once = _shared(experiment, workspace, frozen)
    head, finetune = works.get("head"), works.get("finetune")
    # Epochs of these two stages follow from the budget; those of a further one are as they are.
    planned = [work for work in (head, finetune) if work]
    epochs = sum(work.epochs * costs.costs.epoch(work) for work in planned)
    training = costs.seconds(config)
    return Prices(
        start=training - epochs,
        head_epoch=costs.costs.epoch(head) if head else 0.0,
        finetune_epoch=costs.costs.epoch(finetune) if finetune else 0.0,
        once=once,
        finetune_once=finetune_once,
        evidence=costs.evidence(config, seeds=0, slots=slots),
        retrain=costs.retrain,
        evidence_seed=costs.evidence_seed(config, slots),
        view_once=view_once,
        views=config.data.views,
        slower=costs.seconds(config, slowest=True) / training,
        validated=costs.answers(config),
        tested=costs.answers(config, "train+validation"),
    )


def _shared(
    experiment: Experiment, workspace: Workspace, frozen: Frozen
) -> tuple[float, float, float]:
    """Returns the seconds of shared features, of activations of images, and of those of a view."""
    pool, test = len(workspace.dataset.pool), len(workspace.dataset.test)
    config = experiment.defaults()
    size, shown_size = config.data.image_size, config.eval_image_size
    base = backbone_work(config.model.extractor, 0, size).frozen
    features = 0.0
    for name, one in _by_backbone(experiment):
        plain, augmented = feature_passes(one)
        slower = backbone_work(name, 0, size).frozen / base
        looked_at = plain * (pool + test) + augmented * pool
        features += slower * looked_at / frozen.rate + frozen.making
    for path in teachers(experiment):
        # What a teacher says of the images, and of fixed views, is computed once.
        seen = 1 + (config.data.views * strengths(experiment) if config.data.views else 0)
        name, side = teacher_sees(path)
        features += backbone_work(name, 0, side).frozen / base * seen * pool / frozen.rate
    # Of the pool, only validation images are seen as they are; with folds, that is every image.
    evaluated = pool if config.search.folds else len(workspace.dataset.validation_index)
    activations = view = 0.0
    for cache in prefix_caches(experiment):
        if cache.problem is None:
            work = backbone_work(cache.backbone, cache.blocks, cache.image_size, cache.reads)
            image = work.frozen / base / frozen.prefix_rate
            shown = backbone_work(cache.backbone, cache.blocks, shown_size, cache.reads).frozen
            activations += image * shown / work.frozen * (evaluated + test) + frozen.making
            view += image * pool * strengths(experiment)
    return features, activations, view


def _by_backbone(experiment: Experiment) -> Iterator[tuple[str, Experiment]]:
    """Yields the part of a space with each backbone, and with each second one beside it."""
    for name in experiment.values("model.backbone"):
        one = experiment.fixed({"model.backbone": name})
        pooling = next((each for each in one.values("model.pooling") if each in TWO_STREAMS), "")
        seconds = one.values("model.backbone_b")
        for second in seconds:
            own = one if len(seconds) == 1 else one.fixed({"model.backbone_b": second})
            yield joined_names(name, second, pooling), own


def _fewer_preparations(
    experiment: Experiment, workspace: Workspace, frozen: Frozen, budget: float
) -> Experiment:
    """Returns the experiment with defaults in place of choices that take too long to prepare."""
    for path in _prepared_paths():
        once, finetune_once, view = _shared(experiment, workspace, frozen)
        views = min(experiment.defaults().data.views, _ENOUGH_EPOCHS)
        if once + finetune_once + views * view <= _MOST_SHARED * budget:
            break
        several = len(experiment.values(path)) > 1
        if several and path in experiment.space.alternatives:
            default = experiment.space.leaf_values(experiment.default_params()).get(path)
            experiment = experiment.fixed({path: default})
    return experiment


def _prepared_paths() -> list[str]:
    """Returns leaves with separate features or activations per value, the most expensive first."""
    augment = [path for path in leaves() if path.startswith("data.augment.")]
    backbones = ["model.backbone_b", "model.layer_b", "model.backbone"]
    return [*backbones, *augment, "training.finetune.blocks", *_SIZES, "data.fit"]


def _measure(
    config: Config,
    resources: Resources,
    costs: TrialCosts,
    side: int,
    cache_dir: Path | None,
    storage: RunAddress | None,
) -> Frozen:
    """Times steps in all slots at once for the costs, then the frozen backbone alone."""
    remote = ray.remote(_in_a_slot).options(
        num_cpus=resources.cpu, num_gpus=resources.gpu, max_retries=1
    )
    text = config.model_dump_json()
    threads = resources.threads
    count = min(resources.count, _MEASURED_SLOTS)
    given = (text, side, cache_dir, storage, resources.gpu > 0, threads, resources.workers)
    names = [f"slot {number}" for number in range(count)]
    with asked_of_workers("timing optimiser steps for the plan", names) as channel:
        answers = ray.get([remote.remote("steps", *given, channel, name) for name in names])
    for answer in answers:
        for measured in _told(answer)["steps"]:
            costs.costs.observe(measured)
    with asked_of_workers("timing the frozen backbone for the plan", names[:1]) as channel:
        answer = ray.get(remote.remote("frozen", *given, channel, names[0]))
    return Frozen(**_told(answer))


def _told(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    if "environment" in answer:
        raise EnvironmentProblem(answer["environment"])
    if "problem" in answer:
        raise UserError(answer["problem"])
    return answer


def _in_a_slot(
    what: str,
    config: str,
    side: int | None,
    cache_dir: Path | None,
    storage: RunAddress | None,
    gpu: bool,
    threads: int,
    workers: int,
    channel: str,
    name: str,
) -> dict[str, Any]:
    with pulse_of(channel, name):
        return _measured(what, config, side, cache_dir, storage, gpu, threads, workers)


def _measured(
    what: str,
    config: str,
    side: int | None,
    cache_dir: Path | None,
    storage: RunAddress | None,
    gpu: bool,
    threads: int,
    workers: int,
) -> dict[str, Any]:
    import torch

    torch.set_num_threads(threads)
    parsed = Config.model_validate_json(config)
    try:
        workspace = open_workspace(parsed.data, side, cache_dir, storage)
        if what == "steps":
            steps = timed_steps(
                parsed, workspace, gpu=gpu, threads=threads, workers=workers, least=_SECONDS
            )
            return {"steps": steps}
        rate, making = measure_frozen(parsed, workspace)
        backbone = workspace.backbone(parsed)
        device = resolve_device(parsed.training.device)
        low = prefix_uses_bf16(parsed, backbone, device, workspace.cache_dir)
        prefix_rate = rate
        asked = parsed.model.feature_precision
        if asked == "int8" or low != (asked == "bf16"):
            prefix_rate = measure_frozen(parsed, workspace, "bf16" if low else "fp32")[0]
        return {"rate": rate, "prefix_rate": prefix_rate, "making": making}
    except (UserError, OSError) as error:
        problem = environment_problem(error)
        return {"problem": str(error)} if problem is None else {"environment": str(problem)}
