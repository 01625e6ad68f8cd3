"""Optimisers and learning-rate schedules of a stage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gsfl_tune.experiment.config import OptimizerConfig
from gsfl_tune.experiment.errors import UserError

# As of torch's AdamW.
_ADAMW_BETAS = (0.9, 0.999)


class Rates(Protocol):
    """Names the settings that decide the learning rate of a step."""

    @property
    def optimizer(self) -> str:
        """Returns the name of the optimiser."""

    @property
    def schedule(self) -> str:
        """Returns how the rate goes on behind the warm-up."""

    @property
    def warmup(self) -> float:
        """Returns the share of the stage in which the rate rises."""

    @property
    def min_learning_rate(self) -> float:
        """Returns the share of the peak that is left in the end."""


def parameter_groups(
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    undecayed: Iterable[nn.Parameter] = (),
) -> list[dict[str, object]]:
    """Splits parameters into those with weight decay and those without (biases and norms).

    Args:
        parameters: Trainable parameters.
        learning_rate: Peak rate, kept as ``peak`` for `set_learning_rate`.
        weight_decay: Decay of tensors with more than one dimension.
        undecayed: Further ones without decay.
    """
    exempt = {id(parameter) for parameter in undecayed}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in parameters:
        decays = parameter.ndim > 1 and id(parameter) not in exempt
        (decayed if decays else plain).append(parameter)
    shared = {"lr": learning_rate, "peak": learning_rate}
    groups: list[dict[str, object]] = []
    if decayed:
        groups.append({"params": decayed, "weight_decay": weight_decay, **shared})
    if plain:
        groups.append({"params": plain, "weight_decay": 0.0, **shared})
    return groups


def layered_groups(
    blocks: Iterable[Sequence[nn.Parameter]],
    *,
    learning_rate: float,
    decay: float,
    weight_decay: float,
    undecayed: Iterable[nn.Parameter] = (),
) -> list[dict[str, object]]:
    """Gives every block a rate of its own: lower, the farther it is from the end of the network.

    A block k steps below the last one has rate * decay^k. Sources: Clark et al., "ELECTRA:
    Pre-training Text Encoders as Discriminators Rather Than Generators", ICLR 2020; Bao et al.,
    "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022.

    Args:
        blocks: Trainable parameters of every block, the last block first.
        learning_rate: Peak rate of the last block.
        decay: Of the rate from a block to the one below it.
        weight_decay: As of `parameter_groups`.
        undecayed: As of `parameter_groups`.
    """
    exempt = list(undecayed)
    groups: list[dict[str, object]] = []
    for steps, block in enumerate(blocks):
        rate = learning_rate * decay**steps
        groups += parameter_groups(
            block, learning_rate=rate, weight_decay=weight_decay, undecayed=exempt
        )
    return groups


def optimizer_problem(name: Any) -> str | None:
    """Says what is missing for a value of ``training.finetune.optimizer``, or None."""
    if name == "schedule_free" and find_spec("schedulefree") is None:
        return (
            f"found {name}, which needs schedulefree: run  pip install 'gsfl-tune[schedule-free]'"
        )
    return None


def create_optimizer(
    config: OptimizerConfig, groups: list[dict[str, object]]
) -> torch.optim.Optimizer:
    """Creates AdamW or SGD with Nesterov momentum, in their fused form; or Muon.

    Muon: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. The
    averaged gradient of a matrix (of a convolution: an output's weights in a row) is made
    orthogonal. Its size is that of AdamW's step (Liu et al., "Muon is Scalable for LLM Training",
    arXiv 2502.16982), so that rates mean the same. It has no Nesterov momentum, which Jordan et al.
    use and timm leaves off. Vectors, depthwise convolutions and groups with
    ``use_fallback`` take AdamW.

    Schedule-free AdamW: Defazio et al., "The Road Less Scheduled", NeurIPS 2024, algorithm 1. With
    the rate r, the gradient g at ``y = 0.1 z + 0.9 x``, and its second moment v without bias, a
    step is ``z -= r (g / (sqrt(v) + 1e-8) + decay y)`` and ``x += c (z - x)``, where c is the share
    of r^2 in the sum of all r^2 so far. x is what is used, y what is trained: see `training_point`.

    Raises:
        UserError: If a package is missing.
    """
    if problem := optimizer_problem(config.optimizer):
        raise UserError(f"training.finetune.optimizer: {problem}")
    if config.optimizer == "schedule_free":
        from schedulefree import AdamWScheduleFree

        schedule_free: torch.optim.Optimizer = AdamWScheduleFree(groups, betas=_ADAMW_BETAS)
        return schedule_free
    if config.optimizer == "muon":
        from timm.optim import Muon

        muon: torch.optim.Optimizer = Muon(groups, betas=_ADAMW_BETAS, ns_coefficients="original")
        return muon
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    return torch.optim.SGD(
        groups, lr=1e-3, momentum=config.momentum, nesterov=config.momentum > 0, fused=True
    )


@contextmanager
def training_point(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Moves the weights to where gradients are taken, and back to what is used.

    Only schedule-free optimisers tell the two apart. Outside of this, weights are those that are
    validated, saved and exported.
    """
    train, evaluate = (getattr(optimizer, name, None) for name in ("train", "eval"))
    if train is None or evaluate is None:
        yield
        return
    train()
    try:
        yield
    finally:
        evaluate()


class WeightAverage(AveragedModel):
    """Averages the trained weights of a module exponentially; buffers are the latest.

    What torch's own class computes with ``get_ema_multi_avg_fn``, whose update waits for a GPU in
    every step.

    Args:
        module: What is trained; it is copied.
        decay: Share of the average that a step keeps.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Moves the average towards the weights of a module; the first time, to them."""
        pairs = zip(self.module.parameters(), model.parameters(), strict=True)
        # Of divided weights, every process averages its own part.
        trained = ((local_part(a), local_part(w)) for a, w in pairs if w.requires_grad)
        averages, weights = zip(*trained, strict=True)
        if self.n_averaged == 0:  # on the CPU, wherever the weights are
            torch._foreach_copy_(averages, weights)
        else:
            torch._foreach_lerp_(averages, weights, 1 - self._decay)
        buffers = list(model.buffers())
        if buffers:
            torch._foreach_copy_(list(self.module.buffers()), buffers)
        self.n_averaged += 1


def learning_rate_factor(
    step: int, total: int, *, warmup: float, schedule: str, lowest: float = 0.0
) -> float:
    """Returns the share of the peak rate at a step: linear warm-up, then cosine or constant.

    A function of the step alone, so that a restored trial needs no scheduler state.

    Args:
        step: Optimiser step of the stage, counted from 0.
        total: Optimiser steps of the stage.
        warmup: Share of `total` with a rising rate.
        schedule: ``cosine`` or ``constant``.
        lowest: Share of the peak at which the cosine ends.
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    if schedule == "constant":
        return 1.0
    progress = (step - rising) / max(1, total - rising)
    falling = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return lowest + (1.0 - lowest) * falling


def schedule_of(config: Rates) -> str:
    """Returns how the rate goes on after the warm-up, see `learning_rate_factor`."""
    return "constant" if config.optimizer == "schedule_free" else config.schedule


def scheduled(config: Rates, step: int, total: int) -> float:
    """Returns the share of the peak rate that a section sets for a step."""
    return learning_rate_factor(
        step,
        total,
        warmup=config.warmup,
        schedule=schedule_of(config),
        lowest=config.min_learning_rate,
    )


@torch.no_grad()
def lay_out_state(optimizer: torch.optim.Optimizer) -> None:
    """Gives an optimiser's loaded tensors the order in memory of their parameters.

    Fused kernels go through both as they lie in memory, and do not look whether that is the same
    order. A checkpoint may be of processes whose weights are in another one.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for key, value in state.items():
                same_shape = isinstance(value, Tensor) and value.shape == parameter.shape
                if same_shape and value.stride() != parameter.stride():
                    state[key] = torch.empty_like(parameter).copy_(value)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group to `factor` of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def local_part(tensor: Tensor) -> Tensor:
    """Returns this process' part of a divided tensor (`gsfl_tune.training.sharding`), or itself."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part
