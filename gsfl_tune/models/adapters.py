"""Adapters of low rank in the projections of trained blocks, by the library peft.

LoRA: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. A frozen matrix W
becomes W + s B A; A (rank, in) starts at random, B (out, rank) at zero. DoRA: Liu et al., "DoRA:
Weight-Decomposed Low-Rank Adaptation", ICML 2024. Every row of that sum is scaled to a length that
is trained too, and starts as the row of W.

`merge_adapters` adds them to the weights, so that a plain model remains.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from gsfl_tune.models.trained_part import ADAPTERS

_BASE, _OWN = ".base_layer", ".lora_"


def adapters_problem(part: Any) -> str | None:
    """Says what is missing for a value of ``training.finetune.train``, or None."""
    if part in ADAPTERS and find_spec("peft") is None:
        return f"found {part}, which needs peft: run  pip install 'gsfl-tune[adapters]'"
    return None


def add_adapters(
    model: nn.Module, paths: Iterable[str], *, magnitudes: bool, rank: int, scale: float, seed: int
) -> None:
    """Puts adapters around layers of a model; it gives what it gave before.

    Args:
        model: Changed in place; parameters of adapters alone stay trainable.
        paths: Of linear layers and 1 x 1 convolutions.
        magnitudes: Whether lengths of rows are trained too (DoRA).
        rank: Of every adapter.
        scale: s.
        seed: Of A.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=rank,
        lora_alpha=scale * rank,
        target_modules="|".join(map(re.escape, paths)),
        use_dora=magnitudes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    del model.peft_config  # of no use, and in the way of copies


def merge_adapters(model: nn.Module) -> None:
    """Adds adapters to the weights of their layers, and removes them."""
    for path, module in list(model.named_modules()):
        if hasattr(module, "lora_A") and hasattr(module, "get_base_layer"):
            module.merge()
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, module.get_base_layer())


def original_name(name: str) -> str:
    """Returns the name of the parameter that a parameter of an adapted model stands for."""
    path, _, own = name.partition(_OWN)
    return f"{path}.weight" if own else name.replace(_BASE, "")


def magnitudes(model: nn.Module) -> list[nn.Parameter]:
    """Lists the lengths of rows that DoRA trains."""
    named = model.named_parameters()
    return [parameter for name, parameter in named if "lora_magnitude_vector" in name]


@torch.no_grad()
def called(model: Any, paths: Collection[str], images: Tensor) -> list[str]:
    """Returns the modules that a model calls; of others it may read the weights alone.

    Args:
        model: A timm model.
        paths: Of modules of it.
        images: (B, 3, height, width).
    """
    found: set[str] = set()

    def note(path: str) -> Any:
        return lambda *_: found.add(path)

    handles = [model.get_submodule(path).register_forward_pre_hook(note(path)) for path in paths]
    try:
        model.forward_features(images)
    finally:
        for handle in handles:
            handle.remove()
    return [path for path in paths if path in found]
