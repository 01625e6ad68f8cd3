"""Search for the best GSFL-Net: one YAML file in, one checkpoint out.

`Experiment.load` reads a file, `search` goes the whole way, `train` trains one configuration,
`load_bundle` loads what came out, `adapt` adapts it to other images, `Run` reads a run directory.
Names are imported when they are first used, so that a command that only reads a file does not wait
for torch and Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsfl_tune.adaptation import AdaptationFailed, Adapted, adapt
    from gsfl_tune.experiment import Experiment, UserError
    from gsfl_tune.export import Bundle, load_bundle
    from gsfl_tune.pipeline import search
    from gsfl_tune.run.results import Results, read_results
    from gsfl_tune.runs import Run, compare_runs, find_runs
    from gsfl_tune.search import SearchFailed, SearchInterrupted
    from gsfl_tune.training import train

__all__ = [
    "AdaptationFailed",
    "Adapted",
    "Bundle",
    "Experiment",
    "Results",
    "Run",
    "SearchFailed",
    "SearchInterrupted",
    "UserError",
    "adapt",
    "compare_runs",
    "find_runs",
    "load_bundle",
    "read_results",
    "search",
    "train",
]

_HOMES = {
    "AdaptationFailed": "gsfl_tune.adaptation",
    "Adapted": "gsfl_tune.adaptation",
    "adapt": "gsfl_tune.adaptation",
    "Bundle": "gsfl_tune.export",
    "Experiment": "gsfl_tune.experiment",
    "Results": "gsfl_tune.run.results",
    "Run": "gsfl_tune.runs",
    "SearchFailed": "gsfl_tune.search",
    "SearchInterrupted": "gsfl_tune.search",
    "UserError": "gsfl_tune.experiment",
    "compare_runs": "gsfl_tune.runs",
    "find_runs": "gsfl_tune.runs",
    "load_bundle": "gsfl_tune.export",
    "read_results": "gsfl_tune.run.results",
    "search": "gsfl_tune.pipeline",
    "train": "gsfl_tune.training",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
