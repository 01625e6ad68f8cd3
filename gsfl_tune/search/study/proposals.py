"""Proposals for one study, used by the driver and by the process that computes ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from gsfl_tune.experiment.search_config import SamplerConfig
from gsfl_tune.experiment.space import Space
from gsfl_tune.search.samplers.configurations import Tried
from gsfl_tune.search.samplers.cost_aware import Affordable
from gsfl_tune.search.samplers.dry_run import Proposal, propose_new
from gsfl_tune.search.samplers.factory import create_sampler, draws_every_value, draws_everything
from gsfl_tune.search.samplers.history import SeenTrials


class Proposals:
    """Proposes the next trial of a study; the same history gives the same proposal.

    Args:
        config: Configuration of the sampler.
        space: The search space.
        seed: Seed of the study.
        further: Keys of the objectives after the first.
        price: Returns the price of a configuration relative to that of the defaults; default:
            all cost the same.

    Attributes:
        tried: Configurations that the study has tried, as of the last proposal.
    """

    def __init__(
        self,
        config: SamplerConfig,
        space: Space,
        seed: int,
        *,
        further: Sequence[str] = (),
        price: Callable[[Mapping[str, Any]], float] | None = None,
    ) -> None:
        self._config = config
        self._space = space
        self._seed = seed
        self._further = tuple(further)
        self._memory = SeenTrials()
        self._grid: BaseSampler | None = None
        self.tried = Tried(space)
        ratio = config.weighs_cost
        self._affordable = (
            None if price is None or ratio is None else Affordable(space, price, ratio, seed)
        )

    def sampler(self, number: int, turned_down: Sequence[Mapping[str, Any]] = ()) -> BaseSampler:
        """Returns the sampler for a trial, see `create_sampler`."""
        if self._grid is not None:
            return self._grid
        sampler = create_sampler(
            self._config,
            self._space,
            self._seed,
            number,
            self._memory,
            further=self._further,
            turned_down=turned_down,
        )
        if self._config.name == "grid":
            self._grid = sampler  # enumerated once, not for every trial
        return sampler

    def afforded(self, study: optuna.Study, number: int, params: dict[str, Any]) -> dict[str, Any]:
        """Returns a proposal that was computed without prices, or a cheaper one in its place."""
        if self._affordable is None:
            return params
        self.tried.look(study.get_trials(deepcopy=False))
        keep = self.tried.untried()
        return self._affordable.afford(number, params, 0, keep=keep, is_new=self.tried.is_new)

    def new(self, study: optuna.Study, number: int) -> Proposal | None:
        """Proposes trial `number`; returns None when every configuration was tried."""
        return propose_new(
            study,
            lambda turned_down: self.sampler(number, turned_down),
            self._space,
            number,
            self.tried,
            seed=self._seed,
            everything=self.everything,
            every_value=draws_every_value(self._config.name),
            affordable=self._affordable,
        )

    @property
    def everything(self) -> bool:
        """Returns whether inactive parameters are drawn too."""
        return draws_everything(self._config.name)
