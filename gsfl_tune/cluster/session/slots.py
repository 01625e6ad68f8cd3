"""How many trials fit on the nodes of a cluster at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gsfl_tune.cluster.session.gpu_shares import capacity, spread
from gsfl_tune.cluster.session.wait_for_nodes import wait_for_room
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.search_config import ResourcesConfig

# Ray counts in ten-thousandths, and nobody trains on less than a hundredth of a GPU.
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Slots:
    """Holds what one trial occupies, and how many fit.

    Attributes:
        cpu: CPU cores a trial.
        gpu: GPUs a trial; a share of one below 1. As large as the number of trials allows, so that
            Ray cannot put several on one GPU while another idles.
        count: Trials at once.
        workers: Processes of a trial, one for each GPU where it has several.
        asked: The least GPUs that a trial can do with.
        nodes: Resources of the nodes that they were computed for.
        shard: Whether these divide the trained parameters and may be on several nodes.
        per_backbone: Slots of the trials that ``search.resources.per_backbone`` names.
        largest: Trials on the largest node, where `nodes` is left out as others may come.
    """

    cpu: float
    gpu: float
    count: int
    workers: int = 1
    asked: float = field(default=0.0, compare=False, repr=False)
    nodes: tuple[Mapping[str, float], ...] = field(default=(), compare=False, repr=False)
    shard: bool = False
    per_backbone: Mapping[str, Slots] = field(default_factory=dict, compare=False, repr=False)
    largest: int | None = field(default=None, compare=False, repr=False)

    @property
    def threads(self) -> int:
        """Returns the CPU threads of a process of a trial."""
        return max(1, int(self.cpu / self.workers))

    @property
    def per_node(self) -> int:
        """Returns how many trials the largest node holds, which is one machine."""
        if self.largest is not None:
            return max(1, min(self.count, self.largest))
        fitting = [capacity(self.cpu, self.gpu, node) for node in self.nodes]
        return max(1, min(self.count, max(fitting, default=self.count)))

    def of(self, backbone: str) -> Slots:
        """Returns the slots of trials with a backbone, a value of ``model.backbone``."""
        return self.per_backbone.get(backbone, self)

    def at_most(self, count: int) -> Slots:
        """Limits it to `count` at once, each with as much of a GPU as there is."""
        own = {name: each.at_most(count) for name, each in self.per_backbone.items()}
        if not self.nodes or not 0 < self.asked < 1:
            return replace(self, count=min(self.count, count), per_backbone=own)
        gpu, fitting = spread(self.cpu, self.asked, self.nodes, count)
        return replace(self, gpu=gpu, count=fitting, per_backbone=own)


def slots(
    resources: ResourcesConfig,
    max_concurrent: int | None = None,
    backbones: Sequence[str] = (),
) -> Slots:
    """Returns how many trials fit on the Ray that this process is connected to.

    Where ``resources.wait`` allows it, a cluster that has no room yet is given time to grow.

    Args:
        resources: What a trial asks for.
        max_concurrent: Upper limit. With ``resources.wait`` it is also the number: trials that do
            not fit yet wait for nodes that come later.
        backbones: Values of ``model.backbone``, for ``resources.per_backbone``.

    Raises:
        UserError: When no node can hold one trial; the message says what the nodes have.
    """
    if resources.wait > 0:
        for each in _kinds(resources, backbones):
            refuse_impossible(each)
            gpu = _gpus(each, _alive())
            wanted = max_concurrent or 1 if each is resources else 1
            parts = _workers(each, gpu) if each.shard else 1
            wait_for_room(float(each.cpu) / parts, gpu / parts, wanted * parts, resources.wait)
    found = fit(resources, _alive(), max_concurrent, backbones)
    if resources.wait > 0 and max_concurrent:
        return replace(found, count=max_concurrent, nodes=(), largest=found.per_node)
    return found


def _kinds(resources: ResourcesConfig, backbones: Sequence[str]) -> list[ResourcesConfig]:
    """Returns what trials ask for, each kind once, that of most trials first."""
    own = [resources.of(name) for name in backbones]
    kinds: list[ResourcesConfig] = [] if own and None not in own else [resources]
    for each in own:
        if each is not None and each not in kinds:
            kinds.append(each)
    return kinds


def fit(
    resources: ResourcesConfig,
    nodes: Sequence[Mapping[str, float]],
    max_concurrent: int | None = None,
    backbones: Sequence[str] = (),
) -> Slots:
    """Returns how many trials fit on nodes.

    Where ``resources.per_backbone`` gives some backbones slots of their own, the number is that of
    the smallest trials: Ray starts fewer at once where larger ones are among them.

    Args:
        resources: What a trial asks for.
        nodes: Resources of each node as Ray has them (``CPU``, ``GPU``).
        max_concurrent: Upper limit.
        backbones: Values of ``model.backbone``, for ``resources.per_backbone``.

    Raises:
        UserError: When no node can hold one trial, more than one GPU is not a whole number, or
            the keys contradict each other.
    """
    own: dict[str, Slots] = {}
    for name in backbones:
        asked = resources.of(name)
        if asked is not None:
            own[name] = _fit(asked, nodes, max_concurrent, f" with {name}")
    if own and len(own) == len(set(backbones)):
        found = max(own.values(), key=lambda each: each.count)
    else:
        found = _fit(resources, nodes, max_concurrent)
    return replace(found, per_backbone=own)


def _fit(
    resources: ResourcesConfig,
    nodes: Sequence[Mapping[str, float]],
    max_concurrent: int | None,
    which: str = "",
) -> Slots:
    """Returns how many trials of one kind fit; `which` names the kind in messages."""
    refuse_impossible(resources)
    cpu, gpu = float(resources.cpu), _gpus(resources, nodes)
    workers = _workers(resources, gpu)
    # Where parameters are divided, each process may be on another node.
    parts = workers if resources.shard else 1
    count = sum(capacity(cpu / parts, gpu / parts, node) for node in nodes) // parts
    if count == 0:
        asked, missing = _amount(cpu / parts, gpu / parts), "found no node that holds one"
        if parts > 1:
            asked, missing = f"{parts} times {asked}", f"found fewer than {parts} places"
        raise UserError(
            f"search.resources: a trial{which} asks for {asked}; {missing}, the cluster has "
            f"{describe(nodes)}"
            + ("" if resources.wait > 0 else "; for nodes that come later, search.resources.wait")
        )
    known = tuple(dict(node) for node in nodes)
    whole = Slots(cpu, gpu, count, workers, asked=gpu, nodes=known, shard=resources.shard)
    return whole.at_most(max_concurrent or count)


def _gpus(resources: ResourcesConfig, nodes: Sequence[Mapping[str, float]]) -> float:
    several = resources.gpus_per_trial
    if several is not None:
        if resources.gpu not in ("auto", several):
            raise UserError(
                f"search.resources.gpu: found {resources.gpu:g} beside gpus_per_trial {several}, "
                "allowed: one of the two"
            )
        return float(several)
    if resources.gpu == "auto":
        return 1.0 if any(node.get("GPU", 0) > 0 for node in nodes) else 0.0
    return float(resources.gpu)


def _workers(resources: ResourcesConfig, gpu: float) -> int:
    wanted = resources.workers_per_trial
    if gpu == 0:
        return wanted or 1
    workers = max(1, int(gpu))
    if wanted not in (None, workers):
        raise UserError(
            f"search.resources.workers_per_trial: found {wanted} with {gpu:g} GPU"
            f"{'s' if gpu != 1 else ''} a trial, allowed: {workers}, one process for each GPU "
            "(search.resources.gpus_per_trial)"
        )
    return workers


def processes(resources: ResourcesConfig, gpus: int) -> int:
    """Returns the processes that train together on this machine alone, one for each GPU.

    Args:
        resources: What a trial asks for.
        gpus: GPUs of the machine, at least one.

    Raises:
        UserError: When it has fewer GPUs than a trial asks for, or the keys contradict each other.
    """
    refuse_impossible(resources)
    wanted = _gpus(resources, [{"GPU": float(gpus)}])
    if wanted > gpus:
        raise UserError(
            f"search.resources: a trial asks for {wanted:g} GPUs, this machine has {gpus}; allowed "
            "at most as many (search.resources.gpus_per_trial)"
        )
    return _workers(resources, wanted)


def refuse_impossible(resources: ResourcesConfig) -> None:
    """Refuses what no cluster can give.

    Raises:
        UserError: When more than one GPU is not a whole number, or a share is next to nothing.
    """
    if resources.gpu == "auto":
        return
    gpu = float(resources.gpu)
    if (gpu > 1 and gpu != int(gpu)) or 0 < gpu < _LEAST_SHARE:
        raise UserError(
            f"search.resources.gpu: found {gpu:g}, allowed: {_LEAST_SHARE:g} to 1 (several trials "
            "share a GPU), a whole number, or 0"
        )


def describe(nodes: Sequence[Mapping[str, float]]) -> str:
    """Says what nodes have: ``2 nodes of 8 CPU cores and 1 GPU``; largest first."""
    if not nodes:
        return "nothing"
    kinds = Counter((node.get("GPU", 0.0), node.get("CPU", 0.0)) for node in nodes)
    return ", ".join(
        f"{count} node{'s' if count > 1 else ''} of {_amount(cpu, gpu)}"
        for (gpu, cpu), count in sorted(kinds.items(), reverse=True)
    )


def _alive() -> list[Mapping[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _amount(cpu: float, gpu: float) -> str:
    text = f"{cpu:g} CPU core{'s' if cpu != 1 else ''}"
    return f"{text} and {gpu:g} GPU{'s' if gpu != 1 else ''}" if gpu else f"{text} and no GPU"
