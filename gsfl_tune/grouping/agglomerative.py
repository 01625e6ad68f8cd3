"""Agglomerative clustering of confusions."""

from __future__ import annotations

import numpy as np

from gsfl_tune.grouping._base import Grouping, GroupingInput, Groups
from gsfl_tune.grouping.confusion import affinity, held_out_posteriors


class AgglomerativeGrouping(Grouping):
    """Classes that a linear probe confuses share a group: average linkage.

    The distance is the negative logarithm of the confusion: confusions span orders of
    magnitude, and without it all but the strongest look alike.
    """

    name = "agglomerative"

    def assign(self, given: GroupingInput) -> Groups:
        """Merges the most confused classes until ``count`` groups are left."""
        posteriors = held_out_posteriors(
            given.features, given.labels, given.class_count, seed=given.seed
        )
        graph = affinity(posteriors, given.labels)
        np.fill_diagonal(graph, graph.max())
        distances = np.log(graph.max()) - np.log(graph)
        from sklearn.cluster import AgglomerativeClustering  # slow to import, seldom needed

        model = AgglomerativeClustering(given.count, metric="precomputed", linkage="average")
        return model.fit_predict(distances)
