"""What a trained model shows beyond its accuracy."""

from gsfl_tune.evidence.bootstrap import paired_bootstrap
from gsfl_tune.evidence.calibration import calibration
from gsfl_tune.evidence.confusions import (
    ConfusedPair,
    GroupErrors,
    confusion_matrix,
    confusion_report,
    confusion_table,
    group_errors,
    most_confused,
    per_class_accuracy,
    worst_classes,
)
from gsfl_tune.evidence.gradcam import NoMaps, activation_maps
from gsfl_tune.evidence.group_probes import group_probes
from gsfl_tune.evidence.linear_probe import choose_strength, linear_probe
from gsfl_tune.evidence.recompute import recompute_evidence
from gsfl_tune.evidence.swap import swap_test
from gsfl_tune.evidence.trained import ModelGone, Retrained
from gsfl_tune.evidence.write import write_evidence
from gsfl_tune.evidence.yardstick import linear_probe_result

__all__ = [
    "ConfusedPair",
    "GroupErrors",
    "ModelGone",
    "NoMaps",
    "Retrained",
    "activation_maps",
    "calibration",
    "choose_strength",
    "confusion_matrix",
    "confusion_report",
    "confusion_table",
    "group_errors",
    "group_probes",
    "linear_probe",
    "linear_probe_result",
    "most_confused",
    "paired_bootstrap",
    "per_class_accuracy",
    "recompute_evidence",
    "swap_test",
    "worst_classes",
    "write_evidence",
]
