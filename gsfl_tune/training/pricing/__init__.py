"""The cost of a training: operations first, seconds once something was measured."""

from gsfl_tune.training.pricing.costs import ASSUMED, Costs, Measured
from gsfl_tune.training.pricing.work import training_work
from gsfl_tune.training.stages import Work

__all__ = ["ASSUMED", "Costs", "Measured", "Work", "training_work"]
