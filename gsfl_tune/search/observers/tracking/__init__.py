"""External trackers of a search: MLflow, Weights & Biases, TensorBoard."""

from gsfl_tune.search.observers.tracking._base import RunInfo, Tracker, TrialRecord
from gsfl_tune.search.observers.tracking.choose import open_trackers, redacted
from gsfl_tune.search.observers.tracking.follow import Tracking, track_run
from gsfl_tune.search.observers.tracking.tensorboard import (
    TensorBoard,
    show_winner,
    write_tensorboard,
)

__all__ = [
    "RunInfo",
    "TensorBoard",
    "Tracker",
    "Tracking",
    "TrialRecord",
    "open_trackers",
    "redacted",
    "show_winner",
    "track_run",
    "write_tensorboard",
]
