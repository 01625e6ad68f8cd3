"""Optuna's Gaussian process, for a search in which most trials are stopped early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler
from optuna.trial import FrozenTrial

from gsfl_tune.experiment.space import Space
from gsfl_tune.search.observed import Observed

# Of more, the best, the newest, and some of all times: a proposal takes time that grows with
# the square of their number and more.
MOST = 200


class Gp(GPSampler):
    """A Gaussian process that learns from stopped trials too, see `gsfl_tune.search.observed`.

    It knows the space before the first trial has ended. Start-up is over when as many trials have
    ended as it takes, stopped ones included.

    Args:
        space: What is searched.
        joint: What it proposes together, as Optuna's distributions.
        startup_trials: Trials that end before it has a model.
        seed: Of this proposal.
        avoid: Proposals that are not wanted; it looks elsewhere, as if they were running.
        known: See `Observed`.
    """

    def __init__(
        self,
        space: Space,
        joint: Mapping[str, BaseDistribution],
        *,
        startup_trials: int,
        seed: int,
        avoid: Sequence[Mapping[str, Any]] = (),
        known: dict[int, dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(seed=seed, n_startup_trials=1, warn_independent_sampling=False)
        self._space = space
        self._joint = dict(joint)
        self._startup = max(1, startup_trials)
        self._avoid = avoid
        self._known = known

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All of it."""
        return self._joint

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The point that promises most; nothing during start-up."""
        seen = Observed(study, self._space, trial.number, self._avoid, self._known)
        if len(seen.ended) < self._startup:
            return {}
        seen.bound(MOST)
        return super().sample_relative(seen, trial, search_space)  # type: ignore[arg-type]

    def _sample_relative_impl(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        import torch

        # Optuna asks under `with torch.device("cpu")`, through which every one of a hundred
        # thousand small operations then goes in Python: a third of the time of a proposal. No
        # process of ours has another default device.
        with torch._C.DisableTorchFunction():
            return super()._sample_relative_impl(*args, **kwargs)
