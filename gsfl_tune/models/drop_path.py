"""Stochastic depth: residual branches that are left out of training at random, image by image.

Source: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016. A branch f of a block with
rate p gives ``x + b / (1 - p) * f(x)`` with b = 1 at probability 1 - p, else 0. The rates are those
that timm gives a model made with ``drop_path_rate``: they rise from 0 at its beginning towards
that rate at its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch
from timm.layers import DropPath as TimmDropPath
from torch import Tensor, nn

from gsfl_tune.models._blank import blank_model
from gsfl_tune.models._facts import BackboneError


class DropPath(TimmDropPath):
    """Works as timm's, with random numbers of its own.

    Attributes:
        generator: Of the random numbers, on the device of the inputs; None takes torch's global
            one. Compiled code always does.
    """

    generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Zeroes images of a branch (B, ...) at the rate `drop_prob`, and scales the others up."""
        if not self.training or self.generator is None or torch.compiler.is_compiling():
            output: Tensor = super().forward(x)
            return output
        kept = 1 - self.drop_prob
        mask = x.new_empty((len(x), *[1] * (x.ndim - 1)))
        mask.bernoulli_(kept, generator=self.generator)
        return x * (mask.div_(kept) if self.scale_by_keep and kept > 0 else mask)


@lru_cache(maxsize=64)
def drop_path_problem(name: str) -> str | None:
    """Says why a model knows no stochastic depth, or None.

    Raises:
        BackboneError: If there is no such backbone.
    """
    return None if _rates(name, 0.5) else f"{name} takes no drop_path_rate"


def drop_paths(model: nn.Module, name: str, rate: float, trained: Iterable[str]) -> None:
    """Puts stochastic depth into the blocks of a model that are trained.

    Parameters, buffers and their names do not change.

    Args:
        model: A timm model; changed in place.
        name: Its timm name.
        rate: timm's ``drop_path_rate``.
        trained: Names of its parameters that are trained.

    Raises:
        BackboneError: If timm does not take ``drop_path_rate`` for it.
    """
    found = _rates(name, rate)
    if not found:
        raise BackboneError(f"{name} takes no drop_path_rate")
    trained = tuple(trained)
    for path, (own, scale) in found.items():
        parent, _, child = path.rpartition(".")
        if any(each.startswith(f"{parent}.") for each in trained):
            setattr(model.get_submodule(parent), child, DropPath(own, scale))


def seed_drop_paths(model: nn.Module, generator: torch.Generator) -> None:
    """Lets all branches of a model draw from one generator, one after the other."""
    for module in model.modules():
        if isinstance(module, DropPath):
            module.generator = generator


def _rates(name: str, rate: float) -> Mapping[str, tuple[float, bool]]:
    """Returns the rate of every branch, and whether it is scaled, by the path of its module."""
    try:
        model = blank_model(name, drop_path_rate=rate)
    except TypeError:  # the model does not know the option
        return {}
    return {
        path: (float(module.drop_prob), bool(module.scale_by_keep))
        for path, module in model.named_modules()
        if isinstance(module, TimmDropPath) and module.drop_prob
    }
