"""A conditional generator of features for rare classes, and its critics."""

from gsfl_tune.training.generate.epoch import FilledEpoch
from gsfl_tune.training.generate.fill import made_count
from gsfl_tune.training.generate.fit import CRITICS, class_means, fit_generator
from gsfl_tune.training.generate.network import FeatureGenerator
from gsfl_tune.training.generate.work import generator_numbers, generator_operations

__all__ = [
    "CRITICS",
    "FeatureGenerator",
    "FilledEpoch",
    "class_means",
    "fit_generator",
    "generator_numbers",
    "generator_operations",
    "made_count",
]
