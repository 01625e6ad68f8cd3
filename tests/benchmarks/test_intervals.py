"""Rates of missed intervals come with a standard error that fits how their pairs were drawn."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks._intervals import METHODS, Missed, errors


def _missed(*shares: int, chunks_differ: bool) -> Missed:
    found = {"this": np.array(shares)}
    return Missed(np.full(len(shares), 100), found, 1.0, chunks_differ)


def test_of_independent_pairs_the_error_is_that_of_a_share():
    found = _missed(0, 10, 5, 5, chunks_differ=False)
    assert found.rate("this") == 5.0
    assert found.error("this") == pytest.approx(100 * np.sqrt(0.05 * 0.95 / 400))


def test_of_splits_it_is_that_of_the_mean_over_splits():
    """Pairs of a split have heads in common: that they agree says little."""
    found = _missed(0, 20, 0, 0, chunks_differ=True)
    assert found.rate("this") == 5.0
    assert found.error("this") == pytest.approx(np.std([0, 20, 0, 0], ddof=1) / 2)
    assert np.isnan(_missed(5, chunks_differ=True).error("this"))


def test_intervals_are_counted_by_chunk():
    generator = np.random.default_rng(0)
    same = (generator.random((40, 3, 50)) < 0.8).astype(float)
    # In the second chunk the first model is always right, the other never.
    apart = (np.ones((10, 3, 50)), np.zeros((10, 3, 50)))
    found = errors(iter([(same, same), apart]), 0.0, chunks_differ=True)
    for name in METHODS:
        assert found.missed[name].tolist() == [0, 10]
        assert found.rate(name) == 20.0
        assert found.error(name) == 50.0
