"""Many trials: study, sampler, scheduler, Ray trainable, resume, and the retrains at the end.

Names are imported when they are first used: a worker process does not wait for what only the
driver needs, and the process that proposes does without torch and Ray.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsfl_tune.search.added import SamplerFactory, SamplerRequest
    from gsfl_tune.search.asha import Asha
    from gsfl_tune.search.beginning import (
        begin_or_go_on,
        check_run,
        clear,
        refuse_what_fails_later,
        untried,
    )
    from gsfl_tune.search.budget import SearchTime, TimeBudget
    from gsfl_tune.search.final import JobsOutcome, run_jobs
    from gsfl_tune.search.finalists import choose_finalists
    from gsfl_tune.search.interrupt import Interrupt
    from gsfl_tune.search.job import Job, load_result
    from gsfl_tune.search.keeper import refuse_small_disk
    from gsfl_tune.search.planning import fixed_to, plan_time, planned
    from gsfl_tune.search.presence import Presence, present
    from gsfl_tune.search.progress import Progress
    from gsfl_tune.search.protocol import (
        Candidate,
        Retraining,
        SearchFailed,
        SearchInterrupted,
        best,
        pareto_entries,
        reasons,
    )
    from gsfl_tune.search.rehearsal import rehearse_largest
    from gsfl_tune.search.resume import refuse_changes, run_lock
    from gsfl_tune.search.runner import StudyOutcome, open_study, run_study
    from gsfl_tune.search.spaces import plain_space
    from gsfl_tune.search.stored import StorageWatcher, stored_run
    from gsfl_tune.search.study import Study
    from gsfl_tune.search.table import count_trials, write_trials
    from gsfl_tune.search.trial_costs import TrialCosts
    from gsfl_tune.search.utilisation import Utilisation
    from gsfl_tune.search.watcher import Watcher, Watchers

__all__ = [
    "Asha",
    "Candidate",
    "Interrupt",
    "Job",
    "JobsOutcome",
    "Presence",
    "Progress",
    "Retraining",
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
    "count_trials",
    "fixed_to",
    "load_result",
    "open_study",
    "pareto_entries",
    "plain_space",
    "plan_time",
    "planned",
    "present",
    "reasons",
    "refuse_changes",
    "refuse_small_disk",
    "refuse_what_fails_later",
    "rehearse_largest",
    "run_jobs",
    "run_lock",
    "run_study",
    "stored_run",
    "untried",
    "write_trials",
]

_HOMES = {
    "Asha": "asha",
    "Candidate": "protocol",
    "Interrupt": "interrupt",
    "Job": "job",
    "JobsOutcome": "final",
    "Presence": "presence",
    "Progress": "progress",
    "Retraining": "protocol",
    "SamplerFactory": "added",
    "SamplerRequest": "added",
    "SearchFailed": "protocol",
    "SearchInterrupted": "protocol",
    "SearchTime": "budget",
    "StorageWatcher": "stored",
    "Study": "study",
    "StudyOutcome": "runner",
    "TimeBudget": "budget",
    "TrialCosts": "trial_costs",
    "Utilisation": "utilisation",
    "Watcher": "watcher",
    "Watchers": "watcher",
    "begin_or_go_on": "beginning",
    "best": "protocol",
    "check_run": "beginning",
    "clear": "beginning",
    "count_trials": "table",
    "fixed_to": "planning",
    "choose_finalists": "finalists",
    "load_result": "job",
    "open_study": "runner",
    "pareto_entries": "protocol",
    "plain_space": "spaces",
    "plan_time": "planning",
    "planned": "planning",
    "present": "presence",
    "reasons": "protocol",
    "refuse_changes": "resume",
    "refuse_small_disk": "keeper",
    "refuse_what_fails_later": "beginning",
    "rehearse_largest": "rehearsal",
    "run_jobs": "final",
    "run_lock": "resume",
    "run_study": "runner",
    "stored_run": "stored",
    "untried": "beginning",
    "write_trials": "table",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"gsfl_tune.search.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Room(ModuleType):
    """Lets users call what `from gsfl_tune import search` gives them.

    The function has the name of this room, and Python puts a package that is imported in the place
    of whatever its parent had under that name.
    """

    def __call__(self, *args: Any, **options: Any) -> Any:
        """See `gsfl_tune.pipeline.search`."""
        return import_module("gsfl_tune.pipeline").search(*args, **options)


sys.modules[__name__].__class__ = _Room
