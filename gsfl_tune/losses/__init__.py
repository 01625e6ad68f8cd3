"""Losses: the GSFL loss, further terms of packages, and the class centres."""

from gsfl_tune.losses.centers import ClassCenters
from gsfl_tune.losses.gsfl import GsflLoss, LossTerms
from gsfl_tune.losses.terms import Batch, LossTerm, WeightedTerm, create_terms, term_problem

__all__ = [
    "Batch",
    "ClassCenters",
    "GsflLoss",
    "LossTerm",
    "LossTerms",
    "WeightedTerm",
    "create_terms",
    "term_problem",
]
