"""One pass of one view."""

from __future__ import annotations

from gsfl_tune.data import Batch
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods._base import Method, Passes, single_pass


class Single(Method):
    """Passes every image once, as is usual."""

    loss_follows_pass = True

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Computes the loss of the only pass."""
        return single_pass(batch, passes)
