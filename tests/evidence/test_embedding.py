"""The plane: neighbours stay neighbours, the same features give the same picture."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_info, threadpool_limits

from gsfl_tune.evidence.embedding import plane


def clusters(each: int = 25) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), each)
    centres = 8 * generator.normal(size=(4, 30))
    return centres[labels] + generator.normal(size=(len(labels), 30)), labels


def test_clusters_stay_together_and_the_picture_repeats():
    features, labels = clusters()
    points, method = plane(features)
    assert method.startswith("t-SNE")
    assert points.shape == (100, 2)
    assert np.abs(points).max() == pytest.approx(1.0)
    distances = ((points[:, None] - points[None]) ** 2).sum(axis=2) + 1e9 * np.eye(100)
    assert (labels[distances.argmin(axis=1)] == labels).all()
    np.testing.assert_array_equal(points, plane(features)[0])


def test_it_takes_one_thread_on_any_machine(monkeypatch):
    """Threads of a busy machine wait for each other, and their number changes the last bits."""
    used = []
    fit = TSNE.fit_transform

    def watched(self, features):
        used.extend(each["num_threads"] for each in threadpool_info())
        return fit(self, features)

    monkeypatch.setattr(TSNE, "fit_transform", watched)
    with threadpool_limits(2):
        plane(clusters()[0])
    assert set(used) == {1}


@pytest.mark.parametrize("shape", [(1, 5), (6, 5), (40, 1)])
def test_small_tables_have_a_plane_too(shape):
    points, _ = plane(np.random.default_rng(0).normal(size=shape))
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()


def test_a_collapsed_part_is_one_point():
    points, method = plane(np.full((30, 8), 3.0))
    assert method == "all the same"
    assert not points.any()
