"""k-means of class means."""

from __future__ import annotations

import warnings

from gsfl_tune.grouping._base import Grouping, GroupingInput, Groups, Matrix, class_means


def cluster_rows(rows: Matrix, count: int, seed: int) -> Groups:
    """k-means (10 starts) of the rows of a matrix."""
    # scikit-learn takes two seconds to import, and most trials find their groups in the cache.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # coinciding rows: handled later
        return KMeans(count, n_init=10, random_state=seed).fit_predict(rows)


class KMeansGrouping(Grouping):
    """Classes whose mean features lie close together share a group."""

    name = "kmeans"

    def assign(self, given: GroupingInput) -> Groups:
        """Clusters the means of the unit features of every class."""
        means = class_means(given.features, given.labels, given.class_count)
        return cluster_rows(means, given.count, given.seed)
