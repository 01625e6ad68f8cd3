"""Two-dimensional map of features: similar images are near each other (t-SNE)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gsfl_tune.evidence.threads import one_thread

PERPLEXITY = 30
_DIMENSIONS = 50
# With fewer images, neighbourhoods have no meaning.
_FEWEST = 10


def plane(features: ArrayLike, *, seed: int = 0) -> tuple[NDArray[np.float64], str]:
    """Maps features to a plane by t-SNE, after PCA to 50 dimensions.

    Args:
        features: (N, H).
        seed: Seed of PCA and t-SNE.

    Returns:
        (N, 2) coordinates within -1..1, and the method in words. If all features are equal, all
        coordinates are 0.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    values = np.asarray(features, dtype=np.float64)
    values = values - values.mean(axis=0)
    spread = np.sqrt((values**2).sum(axis=1).mean())
    if spread <= 1e-12:
        return np.zeros((len(values), 2)), "all the same"
    # Alike features stay within one stretch: distances are compared with each other only.
    values /= spread
    kept = min(_DIMENSIONS, *values.shape)
    with one_thread():
        reduced = PCA(n_components=kept, svd_solver="full", random_state=seed).fit_transform(values)
        if len(values) < _FEWEST or kept < 2:
            flat = np.zeros((len(values), 2))
            flat[:, : min(2, kept)] = reduced[:, :2]
            return _within(flat), "PCA"
        perplexity = min(PERPLEXITY, (len(values) - 1) // 3)
        tsne = TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=seed)
        return _within(tsne.fit_transform(reduced)), f"t-SNE, perplexity {perplexity}"


def _within(points: NDArray[np.floating]) -> NDArray[np.float64]:
    centred = np.asarray(points, dtype=np.float64)
    centred = centred - (centred.max(axis=0) + centred.min(axis=0)) / 2
    return np.asarray(centred / max(float(np.abs(centred).max()), 1e-12))
