"""The cost of a training: operations first, seconds once something was measured."""

from gsfl_tune.training.pricing.costs import Costs, Measured
from gsfl_tune.training.pricing.work import Work, training_work

__all__ = ["Costs", "Measured", "Work", "training_work"]
