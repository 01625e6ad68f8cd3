"""k-means clustering of class means."""

from __future__ import annotations

import warnings

from gsfl_tune.grouping._base import Grouping, GroupingInput, Groups, Matrix, class_means


def cluster_rows(rows: Matrix, count: int, seed: int) -> Groups:
    """Clusters the rows of a matrix by k-means (10 starts)."""
    # The import takes two seconds, and most trials find their groups in the cache.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # identical rows are handled later
        return KMeans(count, n_init=10, random_state=seed).fit_predict(rows)


class KMeansGrouping(Grouping):
    """Groups classes with similar mean features."""

    name = "kmeans"

    def assign(self, given: GroupingInput) -> Groups:
        """Clusters the means of the unit features of every class."""
        means = class_means(given.features, given.labels, given.class_count)
        return cluster_rows(means, given.count, given.seed)
