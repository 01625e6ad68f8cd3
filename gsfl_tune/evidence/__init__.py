"""What a trained model shows beyond its accuracy; computed from logits, labels and groups."""

from gsfl_tune.evidence.bootstrap import paired_bootstrap
from gsfl_tune.evidence.confusions import (
    ConfusedPair,
    GroupErrors,
    confusion_matrix,
    confusion_report,
    group_errors,
    most_confused,
    per_class_accuracy,
    worst_classes,
)
from gsfl_tune.evidence.linear_probe import choose_strength, linear_probe
from gsfl_tune.evidence.yardstick import linear_probe_result

__all__ = [
    "ConfusedPair",
    "GroupErrors",
    "choose_strength",
    "confusion_matrix",
    "confusion_report",
    "group_errors",
    "linear_probe",
    "linear_probe_result",
    "most_confused",
    "paired_bootstrap",
    "per_class_accuracy",
    "worst_classes",
]
