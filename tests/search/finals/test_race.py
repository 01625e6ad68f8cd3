"""Who is out of the race of finalists, and who is not."""

from __future__ import annotations

import numpy as np
import pytest

from gsfl_tune.search.finals.race import beaten, image_scores
from gsfl_tune.training import Predictions


def right(share: float, *, images: int = 300, seeds: int = 1, base: int = 0) -> list[np.ndarray]:
    """Scores of a model that is right on the first `share` of the images, `base` further on."""
    found = []
    for seed in range(seeds):
        scores = np.zeros(images)
        count = round(share * images)
        scores[(np.arange(count) + base * seed) % images] = 1.0
        found.append(scores)
    return found


def test_one_that_is_clearly_behind_is_out_and_a_near_one_is_not():
    scores = {"leader": right(0.90), "near": right(0.895), "far": right(0.70)}
    assert beaten(scores) == {"far"}


def test_what_seeds_differ_by_counts_besides_the_images():
    # 4 points behind on the same images, which alone would be enough.
    steady = {"leader": right(0.90, seeds=3), "other": right(0.86, seeds=3)}
    assert beaten(steady) == {"other"}
    restless = [
        scores * factor for scores, factor in zip(right(0.9, seeds=3), (1, 0.9, 1.1), strict=True)
    ]
    assert beaten({"leader": restless, "other": right(0.86, seeds=3)}) == set()


def test_the_rate_of_wrong_decisions_between_equals_is_small():
    random = np.random.default_rng(0)
    out = 0
    for _ in range(400):
        hard = random.random(300)
        pair = {
            name: [(random.random(300) > hard * 0.3).astype(float) for _ in range(2)]
            for name in ("one", "other")
        }
        out += bool(beaten(pair))
    # Either of the two may be behind: twice one in twenty.
    assert out / 400 < 0.14


def test_equal_ones_and_a_single_one_stay():
    assert beaten({"only": right(0.5)}) == set()
    assert beaten({"one": right(0.8), "other": right(0.8)}) == set()


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "nll", "top3", "top5"])
def test_scores_of_images_have_the_metric_as_their_mean(metric):
    random = np.random.default_rng(1)
    labels = random.integers(0, 7, 200)
    logits = random.normal(size=(200, 7)).astype(np.float32)
    logits[np.arange(200), labels] += 1
    predictions = Predictions(logits, labels, [""] * 200)
    scores = image_scores(f"validation/{metric}", predictions)
    sign = -1 if metric == "nll" else 1
    assert scores.mean() == pytest.approx(sign * predictions.metrics()[metric])


def test_a_metric_that_is_no_mean_over_images_puts_nobody_out():
    predictions = Predictions(np.zeros((4, 3)), np.zeros(4, dtype=np.int64), [""] * 4)
    assert image_scores("validation/ece", predictions) is None
