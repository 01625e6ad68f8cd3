"""How a time budget is spent: epochs, finalists and seeds follow from what an epoch costs here.

Everything up to the tested bundle is counted: what all trials share (features, cached activations),
the search, the race of the finalists, the retrains of winner and control, evidence and export.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.units import time_text

Control = Literal["matched", "tuned", "off"]

# Epochs of the finetune stage, finalists and seeds, the most wanted first. Fewer than eight epochs
# cost accuracy before fewer seeds do; without time for two the head alone is searched.
_WANTED: tuple[tuple[int, int, int], ...] = (
    (12, 3, 3), (10, 3, 3), (8, 3, 3), (8, 3, 2), (8, 2, 2), (8, 2, 1), (6, 2, 1), (6, 1, 1),
    (4, 2, 1), (4, 1, 1), (3, 1, 1), (2, 1, 1),
)  # fmt: skip
_HEAD_ALONE: tuple[tuple[int, int], ...] = ((3, 3), (3, 2), (2, 2), (2, 1), (1, 1))
# Of the time that trials and retrains share, the search has at least so much, and so many
# trainings' worth of it: with less it would choose among almost nothing.
_SEARCH_SHARE = 0.4
_SEARCH_TRAININGS = 4.0
# What trials take of a whole training on average, as most are stopped early.
SURVIVING = 0.45
# Left alone: what nobody foresees.
_RESERVE = 0.05


@dataclass(frozen=True)
class Prices:
    """Seconds of one slot, unless they say otherwise.

    Attributes:
        start: Of a training besides its epochs.
        head_epoch: Of the head stage, by the defaults.
        finetune_epoch: Of the finetune stage, by the defaults.
        once: What all trials share, of the whole machine.
        finetune_once: Of that, what only a finetune stage needs.
        evidence: After the last retrain: probes, pictures, export, of the whole machine.
        retrain: Factor of a training on training and validation images together.
    """

    start: float
    head_epoch: float
    finetune_epoch: float
    once: float
    finetune_once: float
    evidence: float
    retrain: float

    def training(self, head: int, finetune: int) -> float:
        """Seconds of one training on a slot."""
        return self.start + head * self.head_epoch + finetune * self.finetune_epoch


@dataclass(frozen=True)
class Asked:
    """What the file gives; None where it follows from the budget."""

    head_epochs: int | None
    finetune_epochs: int | None
    finalists: int | None
    final_seeds: int | None
    control: Control


@dataclass(frozen=True)
class TimePlan:
    """What a search does with its time.

    Attributes:
        budget: Seconds of the whole run.
        spent: Of them, before the plan was made.
        head_epochs: Epochs of the head stage.
        finetune_epochs: Epochs of the finetune stage.
        finalists: Best trials that are trained again.
        final_seeds: Seeds of every retrain.
        training: Seconds of one training of the defaults on a slot.
        once: Seconds for what all trials share.
        search: Seconds for the trials, with those of a tuned control.
        finals: Seconds for the race and the retrains.
        evidence: Seconds after them.
        trials: Trials that fit, about.
        slots: Trials at once.
        only: Values that are not searched, by dotted path: each would need features and
            activations of its own, for which there is no time.
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

    def to_json(self) -> dict[str, Any]:
        """For ``plan.json``."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The plan as a user reads it, one line a phase."""
        stages = f"{self.head_epochs} head + {self.finetune_epochs} finetune epochs"
        if not self.finetune_epochs:
            stages = f"{self.head_epochs} head epochs: too little time to train the backbone"
        finals = f"{self.finalists} finalist{'s' * (self.finalists > 1)}, "
        finals += f"{self.final_seeds} seed{'s' * (self.final_seeds > 1)}"
        rows = (
            (self.spent, "preparations, done"),
            (self.once, "features and activations that all trials share"),
            (self.search, f"search: about {self.trials} trials, {self.slots} at once"),
            (self.finals, f"{finals}, winner and control retrained"),
            (self.evidence, "test, evidence and export"),
        )
        head = f"plan for {time_text(self.budget)}: {stages}, {time_text(self.training)} a training"
        lines = [head, *(f"  {time_text(seconds):>7}  {text}" for seconds, text in rows)]
        for path, value in self.only.items():
            lines.append(f"  {path}: only {value}, as there is no time to prepare others")
        return lines


def finals_seconds(
    finalists: int, seeds: int, training: float, retrain: float, slots: int, control: Control
) -> float:
    """Seconds of the race and of the retrains at most, side by side on the slots.

    Args:
        finalists: That race.
        seeds: Of every retrain.
        training: Seconds of one training on the training part.
        retrain: Factor of one on training and validation images.
        slots: Trainings at once.
        control: Kind of control.
    """
    race = math.ceil(finalists * seeds / slots) * training
    if control == "off":
        return race + math.ceil(seeds / slots) * training * retrain
    if control == "tuned":
        return 2 * race + math.ceil(2 * seeds / slots) * training * retrain
    return race + math.ceil(3 * seeds / slots) * training * retrain


def make_plan(
    budget: float, spent: float, slots: int, prices: Prices, asked: Asked, *, head: int = 10
) -> TimePlan:
    """Spends a budget.

    Args:
        budget: Seconds of the whole run.
        spent: Of them, until now.
        slots: Trials at once.
        prices: What trainings cost.
        asked: What the file gives.
        head: Epochs of the head stage where the file leaves them out.

    Raises:
        UserError: When not even one training, its retrain and the evidence fit; the message says
            what would.
    """
    smallest: tuple[float, TimePlan] | None = None
    head_epochs = head if asked.head_epochs is None else asked.head_epochs
    for finetune, finalists, seeds in _choices(asked):
        once = prices.once + (prices.finetune_once if finetune else 0.0)
        training = prices.training(head_epochs, finetune)
        finals = finals_seconds(finalists, seeds, training, prices.retrain, slots, asked.control)
        shared = budget * (1 - _RESERVE) - spent - once - prices.evidence
        search = shared - finals
        searches = 2 if asked.control == "tuned" else 1
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
            evidence=prices.evidence,
            trials=max(1, int(max(0.0, search) * slots / (SURVIVING * training))),
            slots=slots,
        )
        worth = min(_SEARCH_TRAININGS, slots * 4) * training / slots
        if search >= max(searches * worth, _SEARCH_SHARE * shared):
            return plan
        # At the least, one trial comes to its end in every search.
        least = (spent + once + prices.evidence + finals + searches * training) / (1 - _RESERVE)
        if smallest is None or least < smallest[0]:
            smallest = least, plan
    assert smallest is not None
    least, plan = smallest
    if budget >= least:
        return plan
    raise UserError(
        f"search.time_budget: found {time_text(budget)}, allowed here at least "
        f"{time_text(math.ceil(least / 30) * 30)}: {time_text(plan.spent + plan.once)} before the "
        f"first trial, {time_text(plan.training)} a training ({plan.head_epochs} head and "
        f"{plan.finetune_epochs} finetune epochs), {time_text(plan.finals)} for the finals of "
        f"{plan.finalists} finalist(s) with {plan.final_seeds} seed(s), "
        f"{time_text(plan.evidence)} for evidence and export"
    )


def _choices(asked: Asked) -> Iterator[tuple[int, int, int]]:
    """Finetune epochs, finalists and seeds that the file allows, the most wanted first."""
    seen: set[tuple[int, int, int]] = set()
    wanted = [*_WANTED, *((0, *finals) for finals in _HEAD_ALONE)]
    if asked.finetune_epochs is not None:
        # In the order of the finals alone.
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
