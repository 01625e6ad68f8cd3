"""The paired bootstrap against a plain one that draws images one by one."""

from __future__ import annotations

import numpy as np
import pytest

from gsfl_tune.evidence import paired_bootstrap


def plain_bootstrap(a: np.ndarray, b: np.ndarray, resamples: int = 4000) -> tuple[float, float]:
    generator = np.random.default_rng(7)
    differences = []
    for _ in range(resamples):
        drawn = generator.integers(0, a.shape[1], size=a.shape[1])
        differences.append(a[:, drawn].mean() - b[:, drawn].mean())
    return tuple(np.quantile(differences, [0.025, 0.975]))


@pytest.mark.parametrize("seeds", [(3, 3), (1, 3)])
def test_agrees_with_a_plain_bootstrap(seeds):
    generator = np.random.default_rng(1)
    ease = generator.uniform(size=300)
    a = (generator.uniform(size=(seeds[0], 300)) < ease + 0.1).astype(float)
    b = (generator.uniform(size=(seeds[1], 300)) < ease).astype(float)
    found = paired_bootstrap(a, b)
    low, high = plain_bootstrap(a, b)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert found.interval.low == pytest.approx(low, abs=0.004)
    assert found.interval.high == pytest.approx(high, abs=0.004)


def test_pairing_shrinks_the_interval():
    generator = np.random.default_rng(2)
    a = generator.uniform(size=500) < 0.7
    nearly = a.copy()
    nearly[:5] = ~nearly[:5]
    other = generator.permutation(a)
    paired, unpaired = paired_bootstrap(a, nearly), paired_bootstrap(a, other)
    assert paired.interval.high - paired.interval.low < 0.3 * (
        unpaired.interval.high - unpaired.interval.low
    )


def test_equal_models_differ_by_exactly_nothing():
    scores = np.random.default_rng(3).integers(0, 2, size=(3, 50))
    found = paired_bootstrap(scores, scores)
    assert (found.mean, found.interval.low, found.interval.high) == (0.0, 0.0, 0.0)
    assert found.interval.contains_zero


def test_a_wider_level_is_a_wider_interval_and_seeds_repeat():
    generator = np.random.default_rng(4)
    a, b = generator.uniform(size=(2, 200)) < 0.5
    assert paired_bootstrap(a, b) == paired_bootstrap(a, b)
    narrow, wide = (paired_bootstrap(a, b, level=level).interval for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_real_valued_scores_use_every_image():
    generator = np.random.default_rng(5)
    a, b = generator.normal(size=(2, 3000))
    found = paired_bootstrap(a + 0.1, b)
    standard_error = (a - b).std() / np.sqrt(3000)
    assert found.interval.high - found.mean == pytest.approx(1.96 * standard_error, rel=0.05)


@pytest.mark.parametrize(
    ("a", "b"), [([1, 0], [1, 0, 1]), ([], []), ([[np.nan, 1.0]], [[1.0, 1.0]])]
)
def test_refuses_what_cannot_be_paired(a, b):
    with pytest.raises(ValueError):
        paired_bootstrap(a, b)
