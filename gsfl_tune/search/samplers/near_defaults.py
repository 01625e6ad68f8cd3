"""Start-up trials near the defaults, which are expected to be good.

Twelve parameters drawn from wide ranges seldom make a good configuration, and a model of bad trials
alone has little information. So a share of the trials before TPE has its model are the defaults,
moved a little in every direction. The others are drawn anywhere, in case the defaults are poor. So
are parameters whose default nobody chose: the middle of a range is no better than another place.
For the measured effect see docs/defaults.md and docs/search.md. Good configurations of earlier runs
(`search.warm_start`) take turns with the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

# Standard deviation as a share of a parameter's range, on a logarithmic scale where it has one.
WIDTH = 0.2


class NearDefaults:
    """Draws one trial's parameters near their defaults, if it is such a trial.

    Args:
        defaults: Default values by parameter, of those for which somebody chose one.
        share: Share of trials that are drawn so, 0 to 1.
        seed: Seed of this trial.

    Attributes:
        chosen: Whether this trial is one of them.
    """

    def __init__(self, defaults: Mapping[str, Any], share: float, seed: int) -> None:
        self._defaults = defaults
        self._center: Mapping[str, Any] = {}
        self._seed = seed
        self._rng = np.random.default_rng([seed, 1])
        self.chosen = bool(self._rng.random() < share)

    def among(self, centers: Sequence[Mapping[str, Any]]) -> None:
        """Chooses one of the defaults and other good configurations as the trial's centre.

        Args:
            centers: Configurations beside the defaults; parameters that one lacks are the defaults,
                if somebody chose them.
        """
        # A stream of its own: without further configurations the draws are what they were.
        place = int(np.random.default_rng([self._seed, 2]).integers(len(centers) + 1))
        self._center = centers[place - 1] if place else {}

    def knows(self, name: str) -> bool:
        """Returns whether there is a value to be near to."""
        return name in self._center or name in self._defaults

    def draw(self, name: str, distribution: BaseDistribution) -> Any:
        """Draws a value for a parameter that `knows` accepts.

        Numbers come from a normal distribution around the centre's value, truncated at the bounds.
        A choice keeps it in three of five trials and takes any value in the others.
        """
        default = self._center[name] if name in self._center else self._defaults[name]
        if isinstance(distribution, CategoricalDistribution):
            anywhere = self._rng.random() < 2 * WIDTH
            choices = distribution.choices
            return choices[self._rng.integers(len(choices))] if anywhere else default
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        low, high = distribution.low, distribution.high
        ends = np.array([low, high, default], dtype=float)
        first, last, middle = np.log(ends) if distribution.log else ends
        value = np.inf
        # At least every other draw is within the bounds, wherever the default lies between them.
        while not first <= value <= last:
            value = middle + self._rng.normal() * WIDTH * (last - first)
        value = float(np.exp(value)) if distribution.log else float(value)
        if distribution.step:
            value = low + round((value - low) / distribution.step) * distribution.step
        value = min(max(value, low), high)
        return int(value) if isinstance(distribution, IntDistribution) else value
