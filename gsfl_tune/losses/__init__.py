"""The loss: cross-entropy and terms, one file each."""

from gsfl_tune.losses._base import LossInput, LossTerm, Shared, Sizes, Start, Weighted
from gsfl_tune.losses.added import added_term, term_problem
from gsfl_tune.losses.attributes import Attributes
from gsfl_tune.losses.causality import Causality
from gsfl_tune.losses.center import Center
from gsfl_tune.losses.centers import ClassCenters
from gsfl_tune.losses.distill import Distill
from gsfl_tune.losses.fsdg import (
    Consistency,
    Decorrelation,
    GranularityCalibration,
    Specificity,
    fsdg_terms,
)
from gsfl_tune.losses.group_reversal import GroupReversal
from gsfl_tune.losses.group_unlearning import GroupUnlearning
from gsfl_tune.losses.gsfl import ClassCenter, Reconstruction, SharedCenter, gsfl_terms
from gsfl_tune.losses.independence import Independence
from gsfl_tune.losses.isda import Isda
from gsfl_tune.losses.loss import Loss, LossTerms
from gsfl_tune.losses.metric_learning import MetricLearning, metric_learning_problem
from gsfl_tune.losses.pairwise_confusion import PairwiseConfusion
from gsfl_tune.losses.shared_variance import SharedVariance

__all__ = [
    "Attributes",
    "Causality",
    "Center",
    "ClassCenter",
    "ClassCenters",
    "Consistency",
    "Decorrelation",
    "Distill",
    "GranularityCalibration",
    "GroupReversal",
    "GroupUnlearning",
    "Independence",
    "Isda",
    "Loss",
    "LossInput",
    "LossTerm",
    "LossTerms",
    "MetricLearning",
    "PairwiseConfusion",
    "Reconstruction",
    "Shared",
    "SharedCenter",
    "SharedVariance",
    "Sizes",
    "Specificity",
    "Start",
    "Weighted",
    "added_term",
    "fsdg_terms",
    "gsfl_terms",
    "metric_learning_problem",
    "term_problem",
]
