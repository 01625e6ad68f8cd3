"""A metric: how often the worst class is right."""

import numpy as np

from gsfl_tune.experiment.metrics import MetricOfPackage


class WorstClass(MetricOfPackage):
    """Recall of the class that is recognised worst, of those that occur."""

    direction = "maximize"
    is_share = True

    def of(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """Computes the smallest recall."""
        right = logits.argmax(axis=1) == labels
        return min(float(right[labels == label].mean()) for label in np.unique(labels))
