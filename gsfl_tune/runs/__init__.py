"""Several runs: listed, compared and cleaned, and one run for a notebook.

Names are imported at their first use: a list of runs needs no PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsfl_tune.runs.cleaning import Cleaning, clean, plan_cleaning
    from gsfl_tune.runs.comparison import Comparison, compare_runs
    from gsfl_tune.runs.listing import RunSummary, find_runs, summarise
    from gsfl_tune.runs.notebook import Run
    from gsfl_tune.runs.state import State, state_of

__all__ = [
    "Cleaning",
    "Comparison",
    "Run",
    "RunSummary",
    "State",
    "clean",
    "compare_runs",
    "find_runs",
    "plan_cleaning",
    "state_of",
    "summarise",
]

_HOMES = {
    "Cleaning": "cleaning",
    "Comparison": "comparison",
    "Run": "notebook",
    "RunSummary": "listing",
    "State": "state",
    "clean": "cleaning",
    "compare_runs": "comparison",
    "find_runs": "listing",
    "plan_cleaning": "cleaning",
    "state_of": "state",
    "summarise": "listing",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
