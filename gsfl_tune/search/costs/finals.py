"""The price of the finals: the race of the finalists, and the retrains of winner and control."""

from __future__ import annotations

import math
from typing import Literal

Control = Literal["matched", "tuned", "off"]
Follows = Literal["matched", "tuned", "off", "raced"]
"""What comes after a race.

``matched``, ``tuned``, ``off``: what a control of this kind takes. ``raced``: the retrains alone,
as winner and control are validated.
"""


def finals_seconds(
    finalists: int,
    seeds: int,
    raced: float,
    retrained: float,
    slots: int,
    control: Follows,
    *,
    owed: int | None = None,
) -> float:
    """Returns the most seconds that race and retrains take, in parallel on the slots.

    Args:
        finalists: Number of finalists that race.
        seeds: Number of seeds of every retrain.
        raced: Seconds of one training on the training part, with its last answers.
        retrained: Seconds of one on training and validation images together, with its last answers.
        slots: Number of parallel trainings.
        control: Kind of control; ``raced``: this race is the last one, winner and control need no
            validation after it.
        owed: Trainings of the race that are not finished yet; default: all of them.
    """
    whole = math.ceil(finalists * seeds / slots) * raced
    race = whole if owed is None else math.ceil(owed / slots) * raced
    validated = 0 if control in ("off", "raced") else 1
    if finalists == 1:
        # A single finalist has no race: it is validated beside the retrains.
        race, validated = 0.0, validated + 1
    elif control == "tuned":
        race, validated = race + whole, 0  # that of the control's own finalists follows
    tested = 1 if control == "off" else 2
    longest = max(raced, retrained) if validated else retrained
    return race + math.ceil((validated + tested) * seeds / slots) * longest
