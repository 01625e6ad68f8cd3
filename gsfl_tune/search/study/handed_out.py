"""The record of a trial that a study hands out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Asked:
    """Holds a configuration to try.

    Attributes:
        number: Trial number.
        params: Parameter name to value.
        protected: Whether ASHA must not stop the trial.
        rungs: Values that the journal already has, by rung. Not empty for a trial that was
            running when the search was interrupted.
    """

    number: int
    params: dict[str, Any]
    protected: bool
    rungs: dict[int, float]
