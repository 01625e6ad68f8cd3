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
    (12, 3, 3), (10, 3, 3), (8, 3, 3), (8, 3, 2), (8, 2, 2), (8, 2, 1), (8, 1, 1), (6, 2, 1),
    (6, 1, 1), (4, 2, 1), (4, 1, 1), (3, 1, 1), (2, 1, 1),
)  # fmt: skip
_HEAD_ALONE: tuple[tuple[int, int], ...] = ((3, 3), (3, 2), (2, 2), (2, 1), (1, 1))
# Of the time that trials and retrains share, the search has at least so much, and so many
# trainings' worth of it: with less it would choose among almost nothing.
_SEARCH_SHARE = 0.4
_SEARCH_TRAININGS = 4.0
# What trials take of a whole training on average, as most are stopped early.
SURVIVING = 0.45
# Of how many retrains the evidence looks into the models.
EVIDENCE_SEEDS = 3
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
        finetune_once: Of that, what only a finetune stage needs, its views aside.
        evidence: After the last retrain: probes, pictures, export, of the whole machine.
        retrain: Factor of a training on training and validation images together.
        evidence_seed: Of the evidence, for every seed whose backbone was trained: its features
            are its own.
        view_once: What every fixed view adds to `finetune_once`.
        views: Fixed views of an image that the file asks for.
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

    def shared(self, finetune: int) -> float:
        """Seconds for what all trials share; of the views, no more than there are epochs."""
        if not finetune:
            return self.once
        return self.once + self.finetune_once + min(self.views, finetune) * self.view_once

    def training(self, head: int, finetune: int) -> float:
        """Seconds of one training on a slot."""
        return self.start + head * self.head_epoch + finetune * self.finetune_epoch


@dataclass(frozen=True)
class Asked:
    """What the file gives; None where it follows from the budget.

    Attributes:
        head_epochs: Epochs of the head stage.
        finetune_epochs: Epochs of the finetune stage.
        finalists: Best trials that are trained again.
        final_seeds: Seeds of every retrain.
        control: Kind of control.
        grace: Head epochs that no trial is stopped before; None where none is stopped at all.
    """

    head_epochs: int | None
    finetune_epochs: int | None
    finalists: int | None
    final_seeds: int | None
    control: Control
    grace: int | None = 1

    def share(self, head_epochs: int, finetune_epochs: int) -> float:
        """Share of a whole training that a trial takes on average."""
        compared = self.grace is not None and (finetune_epochs > 0 or head_epochs > self.grace)
        return SURVIVING if compared else 1.0


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
            activations of its own or train too long.
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
            lines.append(f"  {path}: only {value}, as there is no time for others")
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
    validated = 0 if control == "off" else 1
    if finalists == 1:
        # Nobody to race with: it is validated beside the retrains.
        race, validated = 0.0, validated + 1
    elif control == "tuned":
        race, validated = 2 * race, 0
    tested = 1 if control == "off" else 2
    return race + math.ceil((validated + tested) * seeds / slots) * training * retrain


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
        once = prices.shared(finetune)
        training = prices.training(head_epochs, finetune)
        finals = finals_seconds(finalists, seeds, training, prices.retrain, slots, asked.control)
        evidence = prices.evidence
        if finetune:
            evidence += min(EVIDENCE_SEEDS, seeds) * prices.evidence_seed
        shared = budget * (1 - _RESERVE) - spent - once - evidence
        search = shared - finals
        searches = 2 if asked.control == "tuned" else 1
        trial = asked.share(head_epochs, finetune) * training
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
        )
        worth = min(_SEARCH_TRAININGS, slots * 4) * training / slots
        if search >= max(searches * worth, _SEARCH_SHARE * shared):
            return plan
        # At the least, one trial comes to its end in every search.
        least = (spent + once + evidence + finals + searches * training) / (1 - _RESERVE)
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
