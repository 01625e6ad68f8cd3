"""One trial: stages, epochs, metrics, checkpoints and feature caches, without Ray and Optuna."""

from gsfl_tune.training.checkpoint import CheckpointError
from gsfl_tune.training.environment import environment
from gsfl_tune.training.fingerprint import FitOn
from gsfl_tune.training.predictions import Predictions, load_predictions
from gsfl_tune.training.standalone import train
from gsfl_tune.training.timeline import Rung, Timeline
from gsfl_tune.training.training import NonFiniteLoss, Training
from gsfl_tune.training.workspace import Workspace, resolve_device

__all__ = [
    "CheckpointError",
    "FitOn",
    "NonFiniteLoss",
    "Predictions",
    "Rung",
    "Timeline",
    "Training",
    "Workspace",
    "environment",
    "load_predictions",
    "resolve_device",
    "train",
]
