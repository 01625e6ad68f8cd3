"""The loss: cross-entropy and terms, one file each."""

from gsfl_tune.losses._base import LossInput, LossTerm, Shared, Sizes, Start
from gsfl_tune.losses.added import added_term, term_problem
from gsfl_tune.losses.center import Center
from gsfl_tune.losses.centers import ClassCenters
from gsfl_tune.losses.gsfl import ClassCenter, Reconstruction, SharedCenter
from gsfl_tune.losses.isda import Isda
from gsfl_tune.losses.loss import Loss, LossTerms, Weighted, gsfl_terms

__all__ = [
    "Center",
    "ClassCenter",
    "ClassCenters",
    "Isda",
    "Loss",
    "LossInput",
    "LossTerm",
    "LossTerms",
    "Reconstruction",
    "Shared",
    "SharedCenter",
    "Sizes",
    "Start",
    "Weighted",
    "added_term",
    "gsfl_terms",
    "term_problem",
]
