"""Optuna's Gaussian process, for a search in which most trials are stopped early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler
from optuna.trial import FrozenTrial

from gsfl_tune.search.samplers.observations import Observer

# Of more, the best, the newest, and some of all times: a proposal takes time that grows with
# the square of their number and more.
MOST = 200


class Gp(Observer, GPSampler):
    """A Gaussian process that learns from stopped trials too, see `samplers.observations`.

    Args:
        seed: Of this proposal.
        startup_trials: Trials that end before it has a model.
        avoid: Proposals that are not wanted; it looks elsewhere, as if they were running.
        options: See `Observer`.
    """

    def __init__(
        self,
        *args: Any,
        seed: int,
        startup_trials: int,
        avoid: Sequence[Mapping[str, Any]] = (),
        **options: Any,
    ) -> None:
        super().__init__(
            *args,
            startup_trials=max(1, startup_trials),
            seed=seed,
            n_startup_trials=1,
            warn_independent_sampling=False,
            **options,
        )
        self._avoid = avoid

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The point that promises most; nothing during start-up."""
        seen = self.observe(study, trial.number, self._avoid)
        if seen is None:
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
