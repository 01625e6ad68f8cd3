"""Optuna's Gaussian process, for a search in which most trials are stopped early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler
from optuna.trial import FrozenTrial

from gsfl_tune.search.samplers.observations import Observer

# From more trials than this, it takes the best, the newest, and a sample of all times: the time of
# a proposal grows at least with the square of their number.
MOST = 200


class Gp(Observer, GPSampler):
    """Fits a Gaussian process that learns from stopped trials too, see `samplers.observations`.

    Args:
        seed: Seed of this proposal.
        startup_trials: Number of ended trials before it has a model.
        avoid: Rejected proposals; they are treated as running trials.
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
        """Returns the most promising point; nothing during start-up."""
        seen = self.observe(study, trial.number, self._avoid)
        if seen is None:
            return {}
        seen.bound(MOST)
        return super().sample_relative(seen, trial, search_space)  # type: ignore[arg-type]

    def _sample_relative_impl(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        import torch

        # Optuna calls this under `with torch.device("cpu")`, which sends each of a hundred thousand
        # small operations through Python: a third of the time of a proposal. No process here has
        # another default device.
        with torch._C.DisableTorchFunction():
            return super()._sample_relative_impl(*args, **kwargs)
