"""One group for all classes."""

from __future__ import annotations

import numpy as np

from gsfl_tune.grouping._base import Grouping, GroupingInput, Groups


class SingleGrouping(Grouping):
    """Puts all classes into one group, whatever the wanted count."""

    name = "single"

    def assign(self, given: GroupingInput) -> Groups:
        """Puts every class into group 0."""
        return np.zeros(given.class_count, dtype=np.int64)
