"""Random groups, the baseline of any grouping."""

from __future__ import annotations

import numpy as np

from gsfl_tune.grouping._base import Grouping, GroupingInput, Groups


class RandomGrouping(Grouping):
    """Groups drawn at random whose sizes differ by one at most."""

    name = "random"

    def assign(self, given: GroupingInput) -> Groups:
        """Deals the classes out in a random order."""
        order = np.random.default_rng(given.seed).permutation(given.class_count)
        return (order % given.count).astype(np.int64)
