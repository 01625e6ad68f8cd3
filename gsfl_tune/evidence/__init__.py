"""Evidence about a trained model beyond its accuracy: errors, calibration, probes, maps."""

from gsfl_tune.evidence.calibration import calibration, calibration_report
from gsfl_tune.evidence.confusions import (
    ConfusedPair,
    GroupErrors,
    attraction,
    confusion_matrix,
    confusion_report,
    confusion_table,
    group_errors,
    most_confused,
    per_class_accuracy,
    worst_classes,
)
from gsfl_tune.evidence.findings import find
from gsfl_tune.evidence.findings_of_parameters import Explained
from gsfl_tune.evidence.findings_of_search import Searched, Work
from gsfl_tune.evidence.gradcam import NoMaps, activation_maps
from gsfl_tune.evidence.group_probes import group_probes
from gsfl_tune.evidence.interval import difference, mean_interval
from gsfl_tune.evidence.linear_probe import LinearProbe, tune_probe
from gsfl_tune.evidence.recompute import recompute_evidence
from gsfl_tune.evidence.swap import swap_test
from gsfl_tune.evidence.tested import Tested
from gsfl_tune.evidence.trained import ModelGone, Retrained
from gsfl_tune.evidence.write import write_evidence
from gsfl_tune.evidence.yardstick import Yardstick, measure_probe, probe_network

__all__ = [
    "ConfusedPair",
    "Explained",
    "GroupErrors",
    "LinearProbe",
    "ModelGone",
    "NoMaps",
    "Retrained",
    "Searched",
    "Tested",
    "Work",
    "Yardstick",
    "activation_maps",
    "attraction",
    "calibration",
    "calibration_report",
    "confusion_matrix",
    "confusion_report",
    "confusion_table",
    "difference",
    "find",
    "group_errors",
    "group_probes",
    "mean_interval",
    "measure_probe",
    "most_confused",
    "per_class_accuracy",
    "probe_network",
    "recompute_evidence",
    "swap_test",
    "tune_probe",
    "worst_classes",
    "write_evidence",
]
