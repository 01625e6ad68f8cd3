"""How many values a leaf of a space can take."""

from __future__ import annotations

import math

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.distributions import Categorical, Integer


def values_of(experiment: Experiment, path: str) -> float:
    """Counts the values that a leaf can take; infinite for a range of floats."""
    count = 0.0
    for item in experiment.space.possible(path):
        if isinstance(item, tuple):
            count += 1
        elif isinstance(item, Categorical):
            count += len(item.choices)
        elif isinstance(item, Integer):
            count += (item.high - item.low) // item.step + 1
        elif item.step is not None or item.low == item.high:
            count += round((item.high - item.low) / (item.step or 1)) + 1
        else:
            return math.inf
    return count
