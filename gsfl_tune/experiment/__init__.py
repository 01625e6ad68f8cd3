"""Experiment files: reading, checks and search space."""

from gsfl_tune.experiment.checks import LeafCheck
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.distributions import Categorical, Distribution, Float, Integer
from gsfl_tune.experiment.errors import ExperimentError, Problem, UserError
from gsfl_tune.experiment.experiment import Experiment
from gsfl_tune.experiment.metrics import METRICS
from gsfl_tune.experiment.space import Parameter, Space

__all__ = [
    "METRICS",
    "Categorical",
    "Config",
    "Distribution",
    "Experiment",
    "ExperimentError",
    "Float",
    "Integer",
    "LeafCheck",
    "Parameter",
    "Problem",
    "Space",
    "UserError",
]
