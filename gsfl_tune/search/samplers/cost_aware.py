"""Proposals that know what a trial costs: expensive configurations are drawn less often."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np

from gsfl_tune.experiment.space import Space
from gsfl_tune.search.samplers.configurations import Anywhere

# How often a value is drawn before its default, or the cheapest draw, is taken.
_DRAWS = 10


class Affordable:
    """Accepts a configuration with probability min(1, ratio / price), or makes it cheaper.

    Weighing what a trial may find by what it costs is expected improvement per second (Snoek,
    Larochelle and Adams, "Practical Bayesian Optimization of Machine Learning Algorithms", NIPS
    2012, section 3.2). Here the sampler has no model of the improvement that could be divided, so
    its proposal is the numerator and a draw the denominator. Above the ratio, proposals take the
    same time in expectation, whatever they cost. A rejected proposal keeps its values, except for
    those that make it expensive. So the mean price is at most twice the ratio, where cheaper values
    exist.

    Decisions depend on the study's seed, the trial's number and the attempt. They do not depend on
    measured times, so a resumed search decides in the same way.

    Args:
        space: The search space.
        price: Returns the price of a configuration relative to that of the defaults.
        ratio: Relative price up to which every configuration is accepted.
        seed: Seed of the study.
    """

    def __init__(
        self,
        space: Space,
        price: Callable[[Mapping[str, Any]], float],
        ratio: float,
        seed: int,
    ) -> None:
        self._space = space
        self._price = price
        self._ratio = ratio
        self._seed = seed
        self._defaults = {each.name: each.distribution.default for each in space.parameters}

    def afford(
        self,
        number: int,
        params: dict[str, Any],
        attempt: int,
        *,
        keep: Container[str],
        is_new: Callable[[Mapping[str, Any]], bool],
    ) -> dict[str, Any]:
        """Returns a proposal, or a cheaper one in its place.

        Args:
            number: Number of the trial.
            params: The proposed values by parameter name.
            attempt: Number of earlier proposals for this trial.
            keep: Parameters whose values stay.
            is_new: Tells whether no trial has had a configuration. Where the cheaper one was tried,
                the proposal stays.
        """
        if self.accepts(number, params, attempt):
            return params
        cheaper = self.cheaper(number, params, attempt, keep=keep)
        return cheaper if is_new(cheaper) else params

    def accepts(self, number: int, params: Mapping[str, Any], attempt: int) -> bool:
        """Decides about a proposal.

        Args:
            number: Number of the trial.
            params: The proposed values by parameter name.
            attempt: Number of earlier proposals for this trial.
        """
        price = self._price(params)
        if price <= self._ratio:
            return True
        rng = np.random.default_rng([self._seed, number, attempt, 4])
        return bool(rng.uniform() * price < self._ratio)

    def cheaper(
        self, number: int, params: Mapping[str, Any], attempt: int, keep: Container[str] = ()
    ) -> dict[str, Any]:
        """Draws what makes a configuration expensive anew, until it costs at most the ratio.

        The parameter whose default would save most is drawn first, anywhere in its range.

        Args:
            number: Number of the trial.
            params: The proposed values by parameter name.
            attempt: Number of earlier proposals for this trial.
            keep: Parameters whose values stay.

        Returns:
            The values; they cost more than the ratio where nothing cheaper was found.
        """
        rng = np.random.default_rng([self._seed, number, attempt, 5])
        given, left = dict(params), [name for name in params if name not in keep]
        while left and (price := self._price(given)) > self._ratio:
            saving = {
                name: self._price({**given, name: self._defaults[name]})
                for name in left
                if name in given
            }
            if not saving or min(saving.values()) >= price:
                break
            name = min(saving, key=lambda each: saving[each])
            left.remove(name)
            given = self._redrawn(given, name, rng)
        return given

    def _redrawn(
        self, given: Mapping[str, Any], name: str, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Draws one parameter, and those that become active by its value."""
        others = {key: value for key, value in given.items() if key != name}
        default = {**others, name: self._defaults[name]}
        found = self._space.suggest(Anywhere(rng, default))
        for _ in range(_DRAWS):
            drawn = self._space.suggest(Anywhere(rng, others))
            price = self._price(drawn)
            if price <= self._ratio:
                return drawn
            if price < self._price(found):
                found = drawn
        return found
