"""What a study hands out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A configuration to try.

    Attributes:
        number: Trial number.
        params: Parameter name to value.
        protected: Whether ASHA must leave the trial alone.
        rungs: Values that the journal already has, by rung: not empty for a trial that was
            under way when the search was cut off.
    """

    number: int
    params: dict[str, Any]
    protected: bool
    rungs: dict[int, float]
