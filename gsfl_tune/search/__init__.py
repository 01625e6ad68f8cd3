"""Many trials: study, sampler, scheduler, Ray trainable, resume, and the retrains at the end."""

from gsfl_tune.search.asha import Asha
from gsfl_tune.search.final import JobsOutcome, run_jobs
from gsfl_tune.search.interrupt import Interrupt
from gsfl_tune.search.job import Job, load_predictions, load_result
from gsfl_tune.search.progress import Progress
from gsfl_tune.search.protocol import (
    Candidate,
    Retraining,
    SearchFailed,
    SearchInterrupted,
    best,
)
from gsfl_tune.search.rehearsal import rehearse_largest
from gsfl_tune.search.resume import refuse_changes, run_lock
from gsfl_tune.search.runner import StudyOutcome, open_study, run_study
from gsfl_tune.search.study import Study
from gsfl_tune.search.table import write_trials
from gsfl_tune.search.watcher import Watcher

__all__ = [
    "Asha",
    "Candidate",
    "Interrupt",
    "Job",
    "JobsOutcome",
    "Progress",
    "Retraining",
    "SearchFailed",
    "SearchInterrupted",
    "Study",
    "StudyOutcome",
    "Watcher",
    "best",
    "load_predictions",
    "load_result",
    "open_study",
    "refuse_changes",
    "rehearse_largest",
    "run_jobs",
    "run_lock",
    "run_study",
    "write_trials",
]
