"""Agglomerative clustering of confusions."""

from __future__ import annotations

import numpy as np

from gsfl_tune.grouping._base import Grouping, GroupingInput, Groups
from gsfl_tune.grouping.confusion import affinity, held_out_posteriors


class AgglomerativeGrouping(Grouping):
    """Groups classes that a linear probe confuses, by average linkage.

    The distance is the negative logarithm of the confusion. Confusions span orders of magnitude,
    and without the logarithm only the strongest would count.
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
        from sklearn.cluster import AgglomerativeClustering  # slow to import, rarely needed

        model = AgglomerativeClustering(given.count, metric="precomputed", linkage="average")
        return model.fit_predict(distances)
