"""The interval of a difference: what is in it, and how often it errs where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from gsfl_tune.evidence import difference, mean_interval
from gsfl_tune.run.results import IMAGES_ALONE, SEEDS_AND_IMAGES


def pair(
    generator: np.random.Generator, seeds: int, images: int, *, seed_effect: float
) -> tuple[np.ndarray, np.ndarray]:
    """The same configuration twice: images differ in difficulty, seeds move all and each."""
    ease = 1.5 + 2 * generator.normal(size=images)

    def right() -> np.ndarray:
        moved = seed_effect * generator.normal(size=(seeds, 1))
        return ease + moved + 0.7 * generator.normal(size=(seeds, images)) > 0

    return right(), right()


@pytest.mark.parametrize("seed_effect", [0.0, 0.3])
def test_three_seeds_that_do_not_differ_are_rarely_said_to(seed_effect):
    """Fails with the paired bootstrap over images, which errs in a third of the cases here."""
    generator = np.random.default_rng(0)
    wrong = sum(
        not difference(*pair(generator, 3, 136, seed_effect=seed_effect)).interval.contains_zero
        for _ in range(600)
    )
    assert 0.01 < wrong / 600 < 0.09


def test_a_true_difference_is_found_with_enough_images():
    generator = np.random.default_rng(1)
    a, b = pair(generator, 3, 5000, seed_effect=0.02)
    b[:, :400] = False
    found = difference(a, b)
    assert found.interval.low > 0
    assert found.interval.method == SEEDS_AND_IMAGES


def test_seeds_that_disagree_widen_it_and_three_are_few():
    generator = np.random.default_rng(2)
    a = generator.random((3, 400)) < np.array([[0.95], [0.8], [0.65]])
    b = generator.random((3, 400)) < 0.8
    wide = difference(a, b).interval
    narrow = difference(np.stack([a[1]] * 3), np.stack([b[0]] * 3)).interval
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_a_model_without_a_seed_has_no_variance_over_seeds():
    """A linear probe given as one row of scores is not "one seed"."""
    generator = np.random.default_rng(3)
    winner, probe = generator.random((3, 300)) < 0.8, generator.random(300) < 0.7
    found = difference(winner, probe)
    assert found.interval.method == SEEDS_AND_IMAGES
    assert difference(winner, probe[None]).interval.method == IMAGES_ALONE
    assert found.mean == pytest.approx(winner.mean() - probe.mean())


def test_one_seed_a_side_covers_images_alone_and_says_so():
    generator = np.random.default_rng(4)
    a, b = pair(generator, 1, 300, seed_effect=0.0)
    found = difference(a, b).interval
    assert found.method == IMAGES_ALONE
    assert not found.covers_seeds
    standard_error = (a[0].astype(float) - b[0]).std(ddof=1) / np.sqrt(300)
    assert found.high - found.low == pytest.approx(2 * 1.96 * standard_error, rel=0.01)


def test_what_a_seed_does_to_single_images_is_counted_once():
    """With seeds that move single images only, as wide as the images alone make it, mostly."""
    generator = np.random.default_rng(5)
    ratios = []
    for _ in range(200):
        a, b = pair(generator, 5, 400, seed_effect=0.0)
        found = difference(a, b).interval
        spread = (a.mean(axis=0) - b.mean(axis=0)).std(ddof=1) / np.sqrt(400)
        ratios.append((found.high - found.low) / (2 * 1.96 * spread))
    assert min(ratios) > 0.999
    assert np.median(ratios) < 1.1


def test_models_that_never_differ_are_not_certainly_equal():
    right = np.ones((3, 50), dtype=bool)
    found = difference(right, right)
    assert found.mean == 0
    # None of 50: up to 7.1 % of others, by Clopper and Pearson.
    assert found.interval.high == pytest.approx(0.0711, abs=1e-3)


def test_no_error_on_few_images_is_no_certainty():
    perfect = mean_interval(np.ones((3, 40), dtype=bool))
    assert perfect.high == 1.0
    assert 0.85 < perfect.low < 0.95
    usual = mean_interval(np.random.default_rng(6).random((3, 400)) < 0.8)
    assert 0.72 < usual.low < 0.8 < usual.high < 0.87


def test_it_is_the_same_whichever_comes_first():
    a, b = pair(np.random.default_rng(7), 3, 200, seed_effect=0.2)
    one, other = difference(a, b), difference(b, a)
    assert one.interval.low == pytest.approx(-other.interval.high)
    assert one.mean == pytest.approx(-other.mean)


@pytest.mark.parametrize(
    ("a", "b"), [([1, 0], [1, 0, 1]), ([], []), ([[np.nan, 1.0]], [[1.0, 1.0]])]
)
def test_refuses_what_cannot_be_paired(a, b):
    with pytest.raises(ValueError):
        difference(a, b)
