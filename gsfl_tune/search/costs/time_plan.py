"""The plan of a time budget: epochs, finalists and seeds follow from measured epoch times.

It counts everything up to the tested bundle: preparation shared by all trials (features, cached
activations), the search, the race of the finalists, the retrains of winner and control, evidence
and export.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.automatic import HEAD_ALONE
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.heads import GROUPED_HEADS
from gsfl_tune.experiment.units import time_text
from gsfl_tune.search.costs.finals import Control, finals_seconds

# Epochs of the finetune stage, finalists and seeds, in order of preference. Fewer than eight
# epochs cost accuracy before fewer seeds do. Without time for two epochs only the head is searched.
_WANTED: tuple[tuple[int, int, int], ...] = (
    (12, 3, 3), (10, 3, 3), (8, 3, 3), (8, 3, 2), (8, 2, 2), (8, 2, 1), (8, 1, 1), (6, 2, 1),
    (6, 1, 1), (5, 1, 1), (4, 1, 1), (3, 1, 1), (2, 1, 1),
)  # fmt: skip
_HEAD_ALONE: tuple[tuple[int, int], ...] = ((3, 3), (3, 2), (2, 2), (2, 1), (1, 1))
# Epochs of the head stage in front of a finetune stage; and where there is none, most first. Fewer
# are planned where the time is too short for a search with one finalist and one seed.
_HEAD_FIRST = (10,)
_HEAD_ONLY = (HEAD_ALONE, 20, 10, 5)
# The search gets at least this share of the time for trials and retrains, and at least this many
# trainings' worth: with less it would choose among almost nothing.
_SEARCH_SHARE = 0.4
_SEARCH_TRAININGS = 3.0
# Up to so many epochs of the finetune stage the next one gives more than trials beside the defaults
# do (1.1 points from the fourth to the sixth: benchmarks/results/recipes.md). The search is then
# over when the defaults have reached their first rung.
_FEW_EPOCHS = 6
# Average share of a whole training that a trial takes, as most are stopped early.
SURVIVING = 0.45
# Number of retrains that the evidence examines.
EVIDENCE_SEEDS = 3
# Reserve for unforeseen delays.
_RESERVE = 0.05


@dataclass(frozen=True)
class Prices:
    """Holds prices in seconds of one slot, unless stated otherwise.

    Attributes:
        start: Price of a training besides its epochs.
        head_epoch: Price of an epoch of the head stage, with the defaults.
        finetune_epoch: Price of an epoch of the finetune stage, with the defaults.
        once: Preparation that all trials share, on the whole machine.
        finetune_once: The part of `once` that only a finetune stage needs, without views.
        evidence: Time after the last retrain (probes, pictures, export) on the whole machine.
        retrain: Factor for a training on training and validation images together.
        evidence_seed: The part of `evidence` for every seed with a trained backbone, which needs
            features of its own.
        view_once: What every fixed view adds to `finetune_once`.
        views: Fixed views of an image that the file asks for.
        slower: Factor for a training on the slowest machine, which ends a round of the finals.
        validated: Last answers for validation images, in fp32, of a trained backbone.
        tested: Last answers for test images, as `validated`.
    """

    start: float
    head_epoch: float
    finetune_epoch: float
    once: float
    finetune_once: float
    evidence: float
    retrain: float
    evidence_seed: float = 0.0
    view_once: float = 0.0
    views: int = 0
    slower: float = 1.0
    validated: float = 0.0
    tested: float = 0.0

    def shared(self, finetune: int) -> float:
        """Returns the seconds of shared preparation; at most one view per epoch counts."""
        if not finetune:
            return self.once
        return self.once + self.finetune_once + min(self.views, finetune) * self.view_once

    def first_rung(self, grace: int, head: int) -> float:
        """Returns the seconds until a trial alone is compared for the first time.

        Args:
            grace: No trial is stopped before this head epoch.
            head: Epochs of the head stage.
        """
        return self.training(min(grace, head), 0) if head else self.training(0, 1)

    def training(self, head: int, finetune: int) -> float:
        """Returns the seconds of one training on a slot."""
        return self.start + head * self.head_epoch + finetune * self.finetune_epoch

    def finals(self, head: int, finetune: int) -> tuple[float, float]:
        """Returns the seconds of a training of the race, and of a retrain, with their answers."""
        training = self.training(head, finetune)
        validated, tested = (self.validated, self.tested) if finetune else (0.0, 0.0)
        raced, retrained = training + validated, training * self.retrain + tested
        return raced * self.slower, retrained * self.slower

    def after(self, finetune: int, seeds: int) -> float:
        """Returns the seconds of evidence and export after retrains with some seeds."""
        return self.evidence + bool(finetune) * min(EVIDENCE_SEEDS, seeds) * self.evidence_seed


@dataclass(frozen=True)
class Asked:
    """Holds the values that the file gives; None where a value follows from the budget.

    Attributes:
        head_epochs: Epochs of the head stage.
        finetune_epochs: Epochs of the finetune stage.
        finalists: Number of best trials that are trained again.
        final_seeds: Number of seeds of every retrain.
        control: Kind of control.
        grace: No trial is stopped before this head epoch; None where none is stopped at all.
        replicates: Most trainings of a trial, over folds and seeds.
        reduction: One in so many trials passes a rung.
        several: Whether there are several objectives: only a trial that came to its end has a place
            on their front.
    """

    head_epochs: int | None
    finetune_epochs: int | None
    finalists: int | None
    final_seeds: int | None
    control: Control
    grace: int | None = 1
    replicates: int = 1
    reduction: int = 2
    several: bool = False

    @property
    def may_stop(self) -> bool:
        """Returns whether a trial that has not come to its end can be the winner."""
        if self.several or self.control == "tuned":
            return False
        return self.grace is not None and self.replicates == 1

    def share(self, head_epochs: int, finetune_epochs: int) -> float:
        """Returns how many whole trainings a trial takes on average.

        Of the trials that end a training, one in `reduction` goes on with the next fold or seed.
        """
        if self.grace is None:
            return float(self.replicates)
        compared = finetune_epochs > 0 or head_epochs > self.grace
        first = SURVIVING if compared else 1.0
        return first + self._ending(head_epochs, finetune_epochs) * sum(
            self.reduction**-number for number in range(1, self.replicates)
        )

    def _ending(self, head_epochs: int, finetune_epochs: int) -> float:
        """Returns the share of trials that end their first training."""
        assert self.grace is not None
        stages = ((self.grace, head_epochs), (1, finetune_epochs))
        rungs = sum(
            1 + max(0, math.ceil(math.log(epochs / first, self.reduction)))
            for first, epochs in stages
            if epochs
        )
        return float(self.reduction ** -max(0, rungs - 1))


@dataclass(frozen=True)
class TimePlan:
    """Holds the plan: how a search spends its time.

    Attributes:
        budget: Seconds of the whole run.
        spent: Seconds of the budget that were spent before the plan was made.
        head_epochs: Epochs of the head stage.
        finetune_epochs: Epochs of the finetune stage.
        finalists: Number of best trials that are trained again.
        final_seeds: Number of seeds of every retrain.
        training: Seconds of one training with the defaults on a slot.
        once: Seconds of preparation that all trials share.
        search: Seconds for the trials, with those of a tuned control.
        finals: Seconds for the race and the retrains.
        evidence: Seconds for evidence and export after the finals.
        trials: Approximate number of trials that fit.
        slots: Number of parallel trials.
        only: Values that are not searched, by dotted path: each other value would need features
            and activations of its own or train too long.
        alone: Whether the first trial, which has the defaults unless the file names another, is the
            only one.
        frozen: Whether the file itself asks for no finetune stage.
        automatic: Leaves that the file leaves to the plan; None if an earlier version made it.
        control: Kind of control.
    """

    budget: float
    spent: float
    head_epochs: int
    finetune_epochs: int
    finalists: int
    final_seeds: int
    training: float
    once: float
    search: float
    finals: float
    evidence: float
    trials: int
    slots: int
    only: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False
    frozen: bool = False
    automatic: list[str] | None = None
    control: Control = "matched"

    def to_json(self) -> dict[str, Any]:
        """Returns the content of ``plan.json``."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Returns the plan as text for the user, one line per phase."""
        search = f"search: about {self.trials} trials, {self.slots} at once"
        if self.alone:
            search = "search: the first trial alone, as there is no time for others"
        retrained = "winner" if self.control == "off" else "winner and control"
        rows = (
            (self.spent, "preparations, done"),
            (self.once, "features and activations that all trials share"),
            (self.search, search),
            (self.finals, f"{self._finals}, {retrained} retrained"),
            (self.evidence, "test, evidence and export"),
        )
        training = f"{time_text(self.training)} a training"
        head = f"plan for {time_text(self.budget)}: {self._stages}, {training}"
        lines = [head, *(f"  {time_text(seconds):>7}  {text}" for seconds, text in rows)]
        for path, value in self.only.items():
            lines.append(f"  {path}: only {value}, as there is no time for others")
        return lines

    def lines_of_resume(self, elapsed: float) -> list[str]:
        """Returns what a resume keeps of the plan, and what time it has, as text for the user.

        Args:
            elapsed: Seconds of the run until now.
        """
        left = max(0.0, self.budget - elapsed)
        search = "the first trial alone" if self.alone else "trials"
        return [
            f"plan for {time_text(self.budget)}, resumed: {self._stages}, as planned before",
            f"  {time_text(left):>7}  left for {search}, {self._finals}, test and export",
            *(f"  {path}: only {value}, as planned before" for path, value in self.only.items()),
        ]

    @property
    def _stages(self) -> str:
        if self.finetune_epochs:
            return f"{self.head_epochs} head + {self.finetune_epochs} finetune epochs"
        why = "a frozen backbone" if self.frozen else "too little time to train the backbone"
        return f"{self.head_epochs} head epochs: {why}"

    @property
    def _finals(self) -> str:
        finalists = f"{self.finalists} finalist{'s' * (self.finalists > 1)}"
        return f"{finalists}, {self.final_seeds} seed{'s' * (self.final_seeds > 1)}"


def control_of(experiment: Experiment) -> Control:
    """Returns the kind of control that a run has: none where no head of its space has groups."""
    grouped = set(GROUPED_HEADS) & set(experiment.values("model.head"))
    return experiment.defaults().search.control if grouped else "off"


def make_plan(budget: float, spent: float, slots: int, prices: Prices, asked: Asked) -> TimePlan:
    """Plans how a budget is spent.

    Args:
        budget: Seconds of the whole run.
        spent: Seconds of the budget that are already spent.
        slots: Number of parallel trials.
        prices: What trainings cost.
        asked: Values that the file gives.

    Raises:
        UserError: When not even one training, its retrain and the evidence fit; the message
            names the smallest budget that fits.
    """
    smallest: tuple[float, TimePlan] | None = None
    for head_epochs, finetune, finalists, seeds in _choices(asked):
        once = prices.shared(finetune)
        training = prices.training(head_epochs, finetune)
        each = prices.finals(head_epochs, finetune)
        finals = finals_seconds(finalists, seeds, *each, slots, asked.control)
        evidence = prices.after(finetune, seeds)
        shared = budget * (1 - _RESERVE) - spent - once - evidence
        search = shared - finals
        searches = 2 if asked.control == "tuned" else 1
        trial = asked.share(head_epochs, finetune) * training
        worth = min(_SEARCH_TRAININGS, slots * 4) * training / slots
        enough = max(searches * worth, _SEARCH_SHARE * shared)
        # In every search at least one trial must complete.
        whole = searches * asked.replicates * training
        if 0 < finetune <= _FEW_EPOCHS and finalists == seeds == 1 and asked.may_stop:
            enough = whole = prices.first_rung(asked.grace or 1, head_epochs)
        plan = TimePlan(
            budget=budget,
            spent=spent,
            head_epochs=head_epochs,
            finetune_epochs=finetune,
            finalists=finalists,
            final_seeds=seeds,
            training=training,
            once=once,
            search=max(0.0, search),
            finals=finals,
            evidence=evidence,
            trials=max(1, int(max(0.0, search) * slots / trial)),
            slots=slots,
            alone=whole <= search < training,
            frozen=asked.finetune_epochs == 0,
            control=asked.control,
        )
        further = whole if asked.replicates > 1 else 0.0
        if search >= max(enough, further):
            return plan
        least = (spent + once + evidence + finals + whole) / (1 - _RESERVE)
        if smallest is None or least < smallest[0]:
            smallest = least, plan
    assert smallest is not None
    least, plan = smallest
    if budget >= least:
        return plan
    # From ten minutes on a text has minutes alone.
    step = 30 if least < 570 else 60
    raise UserError(
        f"search.time_budget: found {time_text(budget)}, allowed here at least "
        f"{time_text(math.ceil(least / step) * step)}: {time_text(plan.spent + plan.once)} before "
        f"the first trial, {time_text(plan.training)} a training ({plan.head_epochs} head and "
        f"{plan.finetune_epochs} finetune epochs), {time_text(plan.finals)} for the finals of "
        f"{plan.finalists} finalist(s) with {plan.final_seeds} seed(s), "
        f"{time_text(plan.evidence)} for evidence and export"
    )


def _choices(asked: Asked) -> Iterator[tuple[int, int, int, int]]:
    """Yields epochs of both stages, finalists and seeds that the file allows, best choice first."""
    heads = _HEAD_ONLY if asked.finetune_epochs == 0 else _HEAD_FIRST
    most, *fewer = heads if asked.head_epochs is None else (asked.head_epochs,)
    rest = list(_after_the_head(asked))
    for each in rest:
        yield most, *each
    for epochs in fewer:
        yield epochs, *rest[-1]


def _after_the_head(asked: Asked) -> Iterator[tuple[int, int, int]]:
    """Yields finetune epochs, finalists and seeds that the file allows, best choice first."""
    seen: set[tuple[int, int, int]] = set()
    wanted = [*_WANTED, *((0, *finals) for finals in _HEAD_ALONE)]
    if asked.finetune_epochs is not None:
        # Only the order of finalists and seeds counts here.
        finals = dict.fromkeys((f, s) for _, f, s in wanted)
        wanted = [(asked.finetune_epochs, *each) for each in finals]
    for finetune, finalists, seeds in wanted:
        choice = (
            finetune,
            finalists if asked.finalists is None else asked.finalists,
            seeds if asked.final_seeds is None else asked.final_seeds,
        )
        if choice not in seen:
            seen.add(choice)
            yield choice
