"""An estimate of a search in hours and money, from a time budget or from measured prices."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from gsfl_tune.search.costs.finals import finals_seconds
from gsfl_tune.search.costs.time_plan import Asked, Prices

Basis = Literal["budget", "measured"]

# Seconds in which a search loads PyTorch and Ray, starts Ray, looks at the images once more, and
# ends. In benchmarks/results/estimates.jsonl `took` less the phases, with the preflight, is 24 to
# 35; 6 to 9 of them are in the price of the evidence, which took that much less.
_START_SECONDS = 22.0


@dataclass(frozen=True)
class Estimate:
    """Holds what a search is expected to take.

    Attributes:
        basis: ``budget``: the search ends by its time budget. ``measured``: steps were timed.
        slots: Number of parallel trials.
        gpus: GPUs of each of them; a share of one below 1.
        seconds: Time of the whole run.
        parts: Seconds of its parts, where they are known.
        epochs: Seconds of an epoch of each stage with the defaults, where steps were timed.
        training: Seconds of one training to its end with the defaults; None if unknown.
    """

    basis: Basis
    slots: int
    gpus: float
    seconds: float
    parts: dict[str, float] = field(default_factory=dict)
    epochs: dict[str, float] = field(default_factory=dict)
    training: float | None = None

    @property
    def hours(self) -> float:
        """Returns the hours of the whole run."""
        return self.seconds / 3600

    @property
    def slot_hours(self) -> float:
        """Returns the hours of all slots together, which are held from the beginning to the end."""
        return self.slots * self.hours

    @property
    def gpu_hours(self) -> float:
        """Returns the hours of all GPUs together."""
        return self.gpus * self.slot_hours

    def money(self, price: float) -> float:
        """Returns what the run costs: slots * hours * price.

        Args:
            price: Of a slot for an hour.
        """
        return self.slot_hours * price

    def to_json(self, price: float | None = None) -> dict[str, Any]:
        """Returns plain values.

        Args:
            price: Of a slot for an hour.
        """
        return {
            "basis": self.basis,
            "slots": self.slots,
            "gpus_per_slot": self.gpus,
            "seconds": round(self.seconds, 1),
            "parts": {name: round(seconds, 1) for name, seconds in self.parts.items()},
            "epoch_seconds": {name: float(f"{each:.4g}") for name, each in self.epochs.items()},
            "training_seconds": None if self.training is None else round(self.training, 1),
            "slot_hours": round(self.slot_hours, 4),
            "gpu_hours": round(self.gpu_hours, 4),
            "price_per_slot_hour": price,
            "money": None if price is None else round(self.money(price), 2),
        }


def of_budget(seconds: float, slots: int, gpus: float) -> Estimate:
    """Returns the estimate of a search that ends by its budget.

    Args:
        seconds: The budget.
        slots: Number of parallel trials.
        gpus: GPUs of each.
    """
    return Estimate("budget", slots, gpus, seconds)


def of_prices(
    prices: Prices,
    asked: Asked,
    *,
    trials: int,
    epochs: tuple[int, int],
    finals: tuple[int, int],
    slots: int,
    gpus: float,
    pretrainings: float = 0.0,
) -> Estimate:
    """Returns the estimate of a search with a number of trials.

    A trial takes the average share of a training that trials take where weak ones are stopped
    (`Asked.share`). All of them are priced like the defaults.

    Args:
        prices: What trainings cost.
        asked: Control, and whether trials are stopped.
        trials: Trials of the search; a tuned control has as many of its own.
        epochs: Epochs of head and finetune stage.
        finals: Finalists, and seeds of every retrain.
        slots: Number of parallel trials.
        gpus: GPUs of each.
        pretrainings: Seconds of all pretrainings on one slot.
    """
    head, finetune = epochs
    finalists, seeds = min(finals[0], trials), finals[1]
    training = prices.training(head, finetune)
    searches = 2 if asked.control == "tuned" else 1
    stopped = asked.share(head, finetune) * training
    parts = {
        "start": _START_SECONDS,
        "preparation": prices.shared(finetune),
        **({"pretrainings": pretrainings / slots} if pretrainings else {}),
        # The first trials, and one at least, are trained to their end, on every fold.
        "search": searches * max(asked.replicates * training, trials * stopped / slots),
        "finals": finals_seconds(
            finalists,
            seeds,
            *prices.finals(head, finetune),
            slots,
            asked.control,
            # A race ends with the first seed or with the last one.
            owed=math.ceil(finalists * (1 + seeds) / 2),
        ),
        "evidence": prices.after(finetune, seeds),
    }
    priced = {"head": (head, prices.head_epoch), "finetune": (finetune, prices.finetune_epoch)}
    by_stage = {name: seconds for name, (count, seconds) in priced.items() if count and seconds}
    return Estimate(
        "measured", slots, gpus, sum(parts.values()), parts, epochs=by_stage, training=training
    )
