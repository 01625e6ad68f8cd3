"""Search over many trials: study, sampler, scheduler, Ray trainable, resume and final retrains.

Names are imported at their first use. So a worker process does not load what only the driver needs,
and the process that proposes needs neither torch nor Ray.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsfl_tune.search.control.interrupt import Interrupt
    from gsfl_tune.search.costs.finals import Follows
    from gsfl_tune.search.costs.time_budget import SearchTime, TimeBudget
    from gsfl_tune.search.costs.time_plan import control_of
    from gsfl_tune.search.costs.trial_costs import TrialCosts
    from gsfl_tune.search.finals.finalists import Prices, choose_finalists, curves_of
    from gsfl_tune.search.finals.protocol import (
        Candidate,
        Retraining,
        SearchFailed,
        SearchInterrupted,
        best,
        no_finalist,
        pareto_entries,
        reasons,
    )
    from gsfl_tune.search.finals.run_retrains import JobsOutcome, run_jobs
    from gsfl_tune.search.observers.base import Watcher, Watchers
    from gsfl_tune.search.observers.checkpoint_retention import refuse_small_disk
    from gsfl_tune.search.observers.terminal import Progress
    from gsfl_tune.search.observers.trials_parquet import count_trials, write_trials
    from gsfl_tune.search.observers.utilisation import Utilisation
    from gsfl_tune.search.opening.begin import (
        begin_or_go_on,
        check_run,
        clear,
        refuse_what_fails_later,
        untried,
    )
    from gsfl_tune.search.opening.first_prices import rehearse_and_price
    from gsfl_tune.search.opening.kept_plan import fixed_to, planned
    from gsfl_tune.search.opening.kept_prices import recall_prices
    from gsfl_tune.search.opening.planning import plan_time
    from gsfl_tune.search.opening.presence import Presence, present
    from gsfl_tune.search.ray_tune.run_context import RunContext
    from gsfl_tune.search.ray_tune.runner import StudyOutcome, open_study, run_study
    from gsfl_tune.search.ray_tune.storage_watch import StorageWatcher, stored_run
    from gsfl_tune.search.samplers.plugin import SamplerFactory, SamplerRequest
    from gsfl_tune.search.samplers.spaces import plain_space
    from gsfl_tune.search.schedulers.asha import Asha
    from gsfl_tune.search.study.journal import read_studies
    from gsfl_tune.search.study.reconcile import refuse_changes
    from gsfl_tune.search.study.study import Study
    from gsfl_tune.search.workers.retrain import Job, load_result

__all__ = [
    "Asha",
    "Candidate",
    "Follows",
    "Interrupt",
    "Job",
    "JobsOutcome",
    "Presence",
    "Prices",
    "Progress",
    "Retraining",
    "RunContext",
    "SamplerFactory",
    "SamplerRequest",
    "SearchFailed",
    "SearchInterrupted",
    "SearchTime",
    "StorageWatcher",
    "Study",
    "StudyOutcome",
    "TimeBudget",
    "TrialCosts",
    "Utilisation",
    "Watcher",
    "Watchers",
    "begin_or_go_on",
    "best",
    "check_run",
    "choose_finalists",
    "clear",
    "control_of",
    "count_trials",
    "curves_of",
    "fixed_to",
    "load_result",
    "no_finalist",
    "open_study",
    "pareto_entries",
    "plain_space",
    "plan_time",
    "planned",
    "present",
    "read_studies",
    "reasons",
    "recall_prices",
    "refuse_changes",
    "refuse_small_disk",
    "refuse_what_fails_later",
    "rehearse_and_price",
    "run_jobs",
    "run_study",
    "stored_run",
    "untried",
    "write_trials",
]

_HOMES = {
    "Asha": "schedulers.asha",
    "Candidate": "finals.protocol",
    "Follows": "costs.finals",
    "Interrupt": "control.interrupt",
    "Job": "workers.retrain",
    "JobsOutcome": "finals.run_retrains",
    "Presence": "opening.presence",
    "Prices": "finals.finalists",
    "Progress": "observers.terminal",
    "Retraining": "finals.protocol",
    "RunContext": "ray_tune.run_context",
    "SamplerFactory": "samplers.plugin",
    "SamplerRequest": "samplers.plugin",
    "SearchFailed": "finals.protocol",
    "SearchInterrupted": "finals.protocol",
    "SearchTime": "costs.time_budget",
    "StorageWatcher": "ray_tune.storage_watch",
    "Study": "study.study",
    "StudyOutcome": "ray_tune.runner",
    "TimeBudget": "costs.time_budget",
    "TrialCosts": "costs.trial_costs",
    "Utilisation": "observers.utilisation",
    "Watcher": "observers.base",
    "Watchers": "observers.base",
    "begin_or_go_on": "opening.begin",
    "best": "finals.protocol",
    "check_run": "opening.begin",
    "clear": "opening.begin",
    "control_of": "costs.time_plan",
    "count_trials": "observers.trials_parquet",
    "fixed_to": "opening.kept_plan",
    "choose_finalists": "finals.finalists",
    "curves_of": "finals.finalists",
    "load_result": "workers.retrain",
    "open_study": "ray_tune.runner",
    "pareto_entries": "finals.protocol",
    "plain_space": "samplers.spaces",
    "plan_time": "opening.planning",
    "read_studies": "study.journal",
    "planned": "opening.kept_plan",
    "present": "opening.presence",
    "no_finalist": "finals.protocol",
    "reasons": "finals.protocol",
    "recall_prices": "opening.kept_prices",
    "refuse_changes": "study.reconcile",
    "refuse_small_disk": "observers.checkpoint_retention",
    "refuse_what_fails_later": "opening.begin",
    "rehearse_and_price": "opening.first_prices",
    "run_jobs": "finals.run_retrains",
    "run_study": "ray_tune.runner",
    "stored_run": "ray_tune.storage_watch",
    "untried": "opening.begin",
    "write_trials": "observers.trials_parquet",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"gsfl_tune.search.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Room(ModuleType):
    """Makes the package callable, as `from gsfl_tune import search` gives users the package.

    The function has the same name as the package, and Python replaces the parent's attribute of
    that name when it imports the package.
    """

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Calls `gsfl_tune.pipeline.search`."""
        return import_module("gsfl_tune.pipeline").search(*args, **options)


sys.modules[__name__].__class__ = _Room
