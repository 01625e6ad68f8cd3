"""A time budget in use: when the search must end, and how long the finals may take."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.heads import GROUPED_HEADS
from gsfl_tune.experiment.units import time_text
from gsfl_tune.search.costs.finals import Control, Follows, finals_seconds
from gsfl_tune.search.costs.time_plan import TimePlan, control_of
from gsfl_tune.search.costs.trial_costs import TrialCosts

# Reserve at the end of the search, for starting the finals and for unforeseen delays.
_MARGIN = 0.03
# The finals may exceed the budget by this share before they give up a finalist or a seed: both
# are worth more than a punctual end.
_OVERDRAFT = 0.05


class TimeBudget:
    """Compares the clock of a run with its plan.

    Args:
        plan: The plan; the finals are planned again with measured training times.
        elapsed: Returns the seconds of the run, earlier drivers included.
        costs: Prices trainings.
        control: Kind of control.
        retrain: Factor for a training on training and validation images.
        slots: Returns the number of parallel trainings with a configuration, now; default: that of
            the plan, which an earlier driver may have made for another machine.
    """

    def __init__(
        self,
        plan: TimePlan,
        elapsed: Callable[[], float],
        costs: TrialCosts,
        *,
        control: Control,
        retrain: float,
        slots: Callable[[Config], int] | None = None,
    ) -> None:
        self.plan = plan
        self._elapsed = elapsed
        self._costs = costs
        self._control = control
        self._retrain = retrain
        self._slots = slots or (lambda config: plan.slots)
        self._follows: Follows | None = None

    @classmethod
    def of(
        cls,
        plan: TimePlan,
        experiment: Experiment,
        elapsed: Callable[[], float],
        costs: TrialCosts,
        slots: Callable[[Config], int] | None = None,
    ) -> TimeBudget:
        """Makes the budget of a run."""
        control = control_of(experiment)
        return cls(plan, elapsed, costs, control=control, retrain=costs.retrain, slots=slots)

    def followed_by(self, follows: Follows | None) -> TimeBudget:
        """Returns this budget for a race after which other steps come than the control says.

        Args:
            follows: What comes after the race; None for what the kind of control says.
        """
        budget = copy.copy(self)
        budget._follows = follows
        return budget

    @property
    def left(self) -> float:
        """Returns the seconds until the end of the budget."""
        return self.plan.budget - self._elapsed()

    @property
    def _for_finals(self) -> float:
        """Returns the seconds until the finals must be over."""
        return self.left + self.plan.budget * _OVERDRAFT - self.plan.evidence

    def training(self, config: Config) -> float:
        """Returns the seconds of a training on one slot."""
        return self._costs.seconds(config)

    def dearest(self, configs: Sequence[Config]) -> Config:
        """Returns the configuration that takes longest in the finals, on the slots it has."""
        return max(configs, key=lambda each: self._last(each) / self._slots(each))

    def search_seconds(self, config: Config, *, share: float = 1.0) -> float:
        """Returns the seconds that the search may still take.

        Args:
            config: The best configuration so far, else the defaults; it sets the price of retrains.
            share: Share of the search, for the first of two studies.
        """
        finals = self._finals(self.plan.finalists, self.plan.final_seeds, [config])
        end = self.plan.budget * (1 - _MARGIN) - finals - self.plan.evidence
        if share < 1:
            begun = self.plan.spent + self.plan.once
            end = begun + share * max(0.0, end - begun)
        return end - self._elapsed()

    def search_over(self, config: Config, *, share: float = 1.0, empty: bool = False) -> str | None:
        """Returns why the search ends now, or None while it may continue.

        Args:
            config: As for `search_seconds`.
            share: As for `search_seconds`.
            empty: Whether no trial has a result yet. The search then goes on until one has, for the
                time of the budget once more at most: a late answer is better than none.
        """
        if self.search_seconds(config, share=share) > 0:
            return None
        if empty and self.left > -self.plan.budget:
            return None
        if self.left <= 0:
            return "search.time_budget is used up"
        return f"the rest of search.time_budget ({time_text(self.left)}) is for the finals"

    def finalists(self, configs: Sequence[Config], finished: Collection[int] = ()) -> int:
        """Returns how many of the first finalists can be trained again in time, at least one.

        Args:
            configs: Configurations of the finalists, best first.
            finished: Places of those that an earlier driver trained. They race without a price.
        """
        for count in range(len(configs), 1, -1):
            racing = [each for i, each in enumerate(configs) if i < count or i in finished]
            owed = sum(place not in finished for place in range(count))
            if self._finals(count, 1, racing, owed=owed) <= self._for_finals:
                return count
        return 1

    def another_seed(self, configs: Sequence[Config], owed: int | None = None) -> bool:
        """Returns whether every finalist still in the race can have one more seed.

        Args:
            configs: Configurations of these finalists.
            owed: Trainings that this takes; default: one each. An earlier driver may have finished
                some of them.
        """
        if owed == 0:
            return True
        return self._finals(len(configs), 1, configs, owed=owed) <= self._for_finals

    def seeds(self, config: Config, owed: Callable[[int], int], *, finished: int = 0) -> int:
        """Returns how many seeds winner and control can be retrained with, at least one.

        Args:
            config: Configuration of the winner, or of the control if that takes longer.
            owed: Returns the number of trainings that a number of seeds still takes.
            finished: Number of seeds that an earlier driver retrained and tested. They stay.
        """
        least = max(1, finished)
        for seeds in range(self.plan.final_seeds, least, -1):
            rounds = math.ceil(owed(seeds) / self._slots(config))
            price = rounds * self._retrained(config)
            if not rounds or price <= self._for_finals:
                return seeds
        return least

    def _last(self, config: Config) -> float:
        """Returns the seconds until the last of several trainings ends: on the slowest machine."""
        return self._costs.seconds(config, slowest=True)

    def _raced(self, config: Config) -> float:
        """Returns the seconds of a training of the race, with its last answers."""
        return self._last(config) + self._costs.answers(config)

    def _retrained(self, config: Config) -> float:
        """Returns the seconds of a retrain, with its last answers."""
        answers = self._costs.answers(config, "train+validation")
        return self._last(config) * self._retrain + answers

    def _finals(
        self,
        finalists: int,
        seeds: int,
        configs: Sequence[Config],
        *,
        owed: int | None = None,
    ) -> float:
        control: Follows = self._follows or self._control
        if self._follows is None and control == "matched":
            grouped = any(each.model.head in GROUPED_HEADS for each in configs)
            control = "matched" if grouped else "off"
        dearest = self.dearest(configs)
        return finals_seconds(
            finalists,
            seeds,
            self._raced(dearest),
            self._retrained(dearest),
            self._slots(dearest),
            control,
            owed=owed,
        )


@dataclass(frozen=True)
class SearchTime:
    """Holds the part of a time budget that belongs to one study's trials.

    Attributes:
        budget: Budget of the run.
        share: Share of the search, for the first of two studies.
        counted: Whether the file also limits the number of trials.
        winner: Configuration of a winner that is known already and has its finals after this study.
    """

    budget: TimeBudget
    share: float = 1.0
    counted: bool = False
    winner: Config | None = None

    def over(self, config: Config, *, empty: bool = False) -> str | None:
        """Returns why the study ends now, or None; see `TimeBudget.search_over`."""
        return self.budget.search_over(self._dearer(config), share=self.share, empty=empty)

    def left(self, config: Config) -> float:
        """Returns the seconds that the study may still take."""
        return max(0.0, self.budget.search_seconds(self._dearer(config), share=self.share))

    def _dearer(self, config: Config) -> Config:
        """Returns the configuration that sets the price of the finals."""
        return config if self.winner is None else self.budget.dearest([config, self.winner])

    def slot_seconds(self, defaults: Config, slots: int, taken: float) -> float:
        """Returns the slot seconds of all trials of the study, those of earlier drivers included.

        Args:
            defaults: Configuration with the defaults.
            slots: Number of parallel trials.
            taken: Seconds that the study has taken.
        """
        time = (self.left(defaults) + taken) * slots
        if not self.counted:
            return time
        return min(time, defaults.search.trials * self.budget.training(defaults))

    def trials(self, most: int) -> int:
        """Returns about how many trials the study will have.

        Args:
            most: ``search.trials``, which without a number in the file is no more than a limit.
        """
        return min(most, max(1, int(self.share * self.budget.plan.trials)))


def unlimited(trials: int) -> int:
    """Returns a number of trials that a search with a time budget cannot reach."""
    return 100 + 10 * math.ceil(trials)
