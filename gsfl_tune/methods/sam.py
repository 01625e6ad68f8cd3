"""Sharpness-aware minimisation: the gradient is taken where the loss nearby is largest.

Source: Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR
2021, equations 2 and 3: ``e = rho * g / |g|`` with the gradient g at the weights w; the step at w
takes the gradient of the loss at w + e.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gsfl_tune.data import Batch
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods._base import Method, Passes

# Of the norm: no division by zero.
_LEAST = 1e-12


class Sam(Method):
    """Trains with the gradient at w + rho * g / |g|; the step costs twice that of one pass.

    |g| is over all weights that are trained. Each micro-batch, piece of a batch, and process finds
    its own e (the paper's m-sharpness). The loss that is recorded is that at w + e. Dropout draws
    other masks in the second pass; statistics of batch norms see both passes.

    Args:
        rho: Length of e.
    """

    head_passes = 2
    feature_passes = 2
    loss_follows_pass = True

    def __init__(self, rho: float) -> None:
        super().__init__()
        self.rho = rho

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Computes the loss at w + e; its gradient is the one there, although weights are w."""
        weights: list[Tensor] = list(passes.parameters)
        # Terms that remember images would count each of them twice.
        gradients = _gradients(_loss(batch, passes, note=False), weights)
        length = torch.stack(torch._foreach_norm(gradients)).norm()
        kept = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            torch._foreach_mul_(gradients, self.rho / (length + _LEAST))
            torch._foreach_add_(weights, gradients)
        terms = _loss(batch, passes, note=True)
        gradients = _gradients(terms, weights)
        with torch.no_grad():
            torch._foreach_copy_(weights, kept)  # exact, as a difference is not
        pairs = zip(weights, gradients, strict=True)
        nothing = sum(((weight - weight.detach()) * each).sum() for weight, each in pairs)
        return terms._replace(total=terms.total.detach() + nothing)


def _loss(batch: Batch, passes: Passes, *, note: bool) -> LossTerms:
    features = passes.features(batch.inputs)
    return passes.loss(passes.head(features), features, batch.targets, note=note)


def _gradients(terms: LossTerms, weights: Sequence[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(terms.total, weights, allow_unused=True)
    pairs = zip(weights, found, strict=True)
    return [torch.zeros_like(w) if each is None else each for w, each in pairs]
