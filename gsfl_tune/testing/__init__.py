"""Checks that a technique keeps what the training takes for granted.

Each raises `AssertionError` with what is wrong; call it from a test of your package.
"""

from gsfl_tune.testing.heads import check_head
from gsfl_tune.testing.loss_terms import check_loss_term
from gsfl_tune.testing.methods import check_method
from gsfl_tune.testing.metrics import check_metric
from gsfl_tune.testing.poolings import check_pooling
from gsfl_tune.testing.samplers import check_sampler
from gsfl_tune.testing.sources import check_source, source_request
from gsfl_tune.testing.transforms import check_transform

__all__ = [
    "check_head",
    "check_loss_term",
    "check_method",
    "check_metric",
    "check_pooling",
    "check_sampler",
    "check_source",
    "check_transform",
    "source_request",
]
