"""Random groups, the baseline for other groupings."""

from __future__ import annotations

import numpy as np

from gsfl_tune.grouping._base import Grouping, GroupingInput, Groups


class RandomGrouping(Grouping):
    """Draws random groups whose sizes differ by at most one."""

    name = "random"

    def assign(self, given: GroupingInput) -> Groups:
        """Assigns the classes in random order to the groups in turn."""
        order = np.random.default_rng(given.seed).permutation(given.class_count)
        return (order % given.count).astype(np.int64)
