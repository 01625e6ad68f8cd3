"""Start-up trials near the defaults: a search begins where somebody thinks that it is good.

Twelve parameters drawn anywhere in wide ranges seldom make a good configuration, and a model of
trials that are all bad has little to say. So a share of the trials before TPE has its model are the
defaults, moved a little in every direction; the others are drawn anywhere, for where the defaults
are poor. What it is worth: docs/defaults.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

# Standard deviation, as a share of a parameter's range, on its logarithm where it has one.
WIDTH = 0.2


class NearDefaults:
    """Draws one trial's parameters near their defaults, if it is one of those trials.

    Args:
        defaults: By parameter.
        share: Of trials that are drawn so, 0 to 1.
        seed: Of this trial.

    Attributes:
        chosen: Whether this trial is one of them.
    """

    def __init__(self, defaults: Mapping[str, Any], share: float, seed: int) -> None:
        self._defaults = defaults
        self._rng = np.random.default_rng([seed, 1])
        self.chosen = bool(self._rng.random() < share)

    def draw(self, name: str, distribution: BaseDistribution) -> Any:
        """A value for the parameter.

        Numbers are drawn from a normal distribution around the default, truncated at the
        bounds; a choice stays what it is in three of five trials and is any in the others.
        """
        default = self._defaults[name]
        if isinstance(distribution, CategoricalDistribution):
            anywhere = self._rng.random() < 2 * WIDTH
            choices = distribution.choices
            return choices[self._rng.integers(len(choices))] if anywhere else default
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        low, high = distribution.low, distribution.high
        ends = np.array([low, high, default], dtype=float)
        first, last, middle = np.log(ends) if distribution.log else ends
        value = np.inf
        # One in two is within the bounds, or more, wherever between them the default is.
        while not first <= value <= last:
            value = middle + self._rng.normal() * WIDTH * (last - first)
        value = float(np.exp(value)) if distribution.log else float(value)
        if distribution.step:
            value = low + round((value - low) / distribution.step) * distribution.step
        value = min(max(value, low), high)
        return int(value) if isinstance(distribution, IntDistribution) else value
