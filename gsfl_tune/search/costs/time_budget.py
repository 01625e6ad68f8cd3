"""A time budget while it is spent: when the search must end, and what the finals may still take."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.units import seconds, time_text
from gsfl_tune.search.costs.time_plan import Control, TimePlan, finals_seconds
from gsfl_tune.search.costs.trial_costs import TrialCosts

# Left alone at the end of the search: what starting the finals takes, and what nobody foresees.
_MARGIN = 0.03
# More than the budget, where the finals would otherwise give up what the search kept time for: a
# finalist or a seed is worth more than a punctual end.
_OVERDRAFT = 0.05


class TimeBudget:
    """Compares the clock of a run with its plan.

    Args:
        plan: What was planned; the finals are planned anew with what trainings really take.
        elapsed: Seconds of the run, those of earlier drivers included.
        costs: What trainings take.
        control: Kind of control.
        retrain: Factor of a training on training and validation images.
    """

    def __init__(
        self,
        plan: TimePlan,
        elapsed: Callable[[], float],
        costs: TrialCosts,
        *,
        control: Control,
        retrain: float,
    ) -> None:
        self.plan = plan
        self._elapsed = elapsed
        self._costs = costs
        self._control = control
        self._retrain = retrain

    @classmethod
    def of(
        cls,
        plan: TimePlan,
        experiment: Experiment,
        elapsed: Callable[[], float],
        costs: TrialCosts,
    ) -> TimeBudget:
        """Of a run; a resume may have another budget than the plan was made for."""
        search = experiment.defaults().search
        if search.time_budget is not None:
            plan = replace(plan, budget=seconds(search.time_budget))
        return cls(plan, elapsed, costs, control=search.control, retrain=costs.retrain)

    @property
    def left(self) -> float:
        """Seconds until the end of the budget."""
        return self.plan.budget - self._elapsed()

    @property
    def _for_finals(self) -> float:
        """Seconds until the finals must be over."""
        return self.left + self.plan.budget * _OVERDRAFT - self.plan.evidence

    def search_seconds(self, config: Config, *, share: float = 1.0) -> float:
        """Seconds that the search may still take.

        Args:
            config: The best configuration so far, else the defaults: what is retrained costs as
                much.
            share: Of the search, for the first of two.
        """
        finals = self._finals(self.plan.finalists, self.plan.final_seeds, config)
        end = self.plan.budget * (1 - _MARGIN) - finals - self.plan.evidence
        if share < 1:
            begun = self.plan.spent + self.plan.once
            end = begun + share * max(0.0, end - begun)
        return end - self._elapsed()

    def search_over(self, config: Config, *, share: float = 1.0) -> str | None:
        """Why the search ends now, None while it may go on."""
        if self.search_seconds(config, share=share) > 0:
            return None
        return f"what is left of search.time_budget ({time_text(self.left)}) is for the finals"

    def finalists(self, configs: Sequence[Config]) -> int:
        """How many of them there is time to train again, one at least."""
        for count in range(len(configs), 1, -1):
            dearest = max(configs[:count], key=self._costs.seconds)
            if self._finals(count, 1, dearest) <= self._for_finals:
                return count
        return 1

    def another_seed(self, configs: Sequence[Config]) -> bool:
        """Whether finalists that still race can have one more seed each."""
        dearest = max(configs, key=self._costs.seconds)
        return self._finals(len(configs), 1, dearest) <= self._for_finals

    def seeds(self, config: Config, *, validated: bool = True) -> int:
        """With how many seeds winner and control can be retrained, one at least.

        Args:
            config: Of the winner.
            validated: Whether it raced; else it is validated now.
        """
        for seeds in range(self.plan.final_seeds, 1, -1):
            if self._finals(0 if validated else 1, seeds, config) <= self._for_finals:
                return seeds
        return 1

    def _finals(self, finalists: int, seeds: int, config: Config) -> float:
        return finals_seconds(
            finalists,
            seeds,
            self._costs.seconds(config),
            self._retrain,
            self.plan.slots,
            self._control,
        )


@dataclass(frozen=True)
class SearchTime:
    """The part of a time budget that the trials of one study have.

    Attributes:
        budget: Of the run.
        share: Of the search, for the first of two studies.
        counted: Whether the file says how many trials there are, too.
    """

    budget: TimeBudget
    share: float = 1.0
    counted: bool = False

    def over(self, config: Config) -> str | None:
        """Why the study ends now, None while it may go on; see `TimeBudget.search_seconds`."""
        return self.budget.search_over(config, share=self.share)

    def left(self, config: Config) -> float:
        """Seconds that it may still take."""
        return max(0.0, self.budget.search_seconds(config, share=self.share))


def unlimited(trials: int) -> int:
    """Trials that a search with a time budget cannot come to."""
    return 100 + 10 * math.ceil(trials)
