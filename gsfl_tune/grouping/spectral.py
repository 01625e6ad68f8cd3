"""Spectral clustering of confusions.

Source: Ng, Jordan and Weiss, "On Spectral Clustering: Analysis and an Algorithm", NIPS 2001.
"""

from __future__ import annotations

import numpy as np

from gsfl_tune.grouping._base import Grouping, GroupingInput, Groups
from gsfl_tune.grouping.confusion import affinity, held_out_posteriors
from gsfl_tune.grouping.kmeans import cluster_rows


class SpectralGrouping(Grouping):
    """Groups classes that a linear probe confuses, by normalised cuts of their graph."""

    name = "spectral"

    def assign(self, given: GroupingInput) -> Groups:
        """Clusters the leading eigenvectors of the normalised affinity."""
        posteriors = held_out_posteriors(
            given.features, given.labels, given.class_count, seed=given.seed
        )
        graph = affinity(posteriors, given.labels)
        root = np.sqrt(graph.sum(1))
        _, vectors = np.linalg.eigh(graph / np.outer(root, root))
        leading = vectors[:, -given.count :]
        norms = np.linalg.norm(leading, axis=1, keepdims=True)
        return cluster_rows(leading / np.maximum(norms, 1e-12), given.count, given.seed)
