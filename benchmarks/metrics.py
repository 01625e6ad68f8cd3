"""Area under the ROC curve and average precision over classes: ours, torchmetrics, scikit-learn.

All sides get the same log-probabilities of 5,000 images, a fifth of them rounded so that scores
tie, and return the mean over all classes, one against the rest. Every class has an image. Each side
is asked as its documentation does for many classes: torchmetrics' functional metrics with
`average="macro"`, on a tensor, exact (no `thresholds`); scikit-learn's with one column a class.
The sides take turns, each with one thread, whose CPU time is counted. The first round does not
count. The table has the median of the others, and the largest difference of either metric from
scikit-learn's.

torchmetrics is no dependency of this project. Put it in a folder of its own and name that::

    pip install --target /tmp/torchmetrics --no-deps torchmetrics lightning-utilities
    PYTHONPATH=/tmp/torchmetrics python benchmarks/metrics.py

Without it, its rows are left out and nothing is saved. A minute on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks._report import publish, table
from gsfl_tune.training.one_against_rest import Labels, Scores, auroc, average_precision

Metric = Callable[[Scores, Labels], float | None]
NAMES = ("AUROC", "average precision")


def case(images: int, classes: int) -> tuple[Scores, Labels]:
    """Log-probabilities of a classifier that is right on some, and the true classes."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.arange(images) % classes)
    logits = 2 * random.normal(size=(images, classes))
    logits[np.arange(images), labels] += 3
    scores = torch.from_numpy(logits).log_softmax(dim=1).numpy()
    scores[: images // 5] = scores[: images // 5].round(1)
    return scores, labels


def scikit_learn(score: Callable[..., float]) -> Metric:
    def of(scores: Scores, labels: Labels) -> float:
        one_hot = labels[:, None] == np.arange(scores.shape[1])
        return float(score(one_hot, scores, average="macro"))

    return of


def torchmetrics(name: str) -> Metric:
    from torchmetrics.functional import classification

    score = getattr(classification, f"multiclass_{name}")

    def of(scores: Scores, labels: Labels) -> float:
        # Outside of 0 to 1 it would take the softmax, which probabilities do not need.
        predicted, target = torch.from_numpy(scores).exp(), torch.from_numpy(labels)
        found = score(predicted, target, num_classes=scores.shape[1], average="macro")
        return float(found)

    return of


def sides() -> dict[str, tuple[Metric, Metric]]:
    """Both metrics of every side, by name."""
    found: dict[str, tuple[Metric, Metric]] = {"ours": (auroc, average_precision)}
    if find_spec("torchmetrics"):
        label = f"torchmetrics {version('torchmetrics')}"
        found[label] = (torchmetrics("auroc"), torchmetrics("average_precision"))
    label = f"scikit-learn {version('scikit-learn')}"
    found[label] = (scikit_learn(roc_auc_score), scikit_learn(average_precision_score))
    return found


def timed(metric: Metric, scores: Scores, labels: Labels) -> tuple[float, float]:
    """Seconds of the process, which has one thread, and the value."""
    started = time.process_time()
    value = metric(scores, labels)
    seconds = time.process_time() - started
    assert value is not None
    return seconds, value


def measure(images: int, classes: int, rounds: int) -> list[list[str]]:
    """A row for each side."""
    scores, labels = case(images, classes)
    tried = sides()
    seconds: dict[tuple[str, int], list[float]] = {}
    values: dict[tuple[str, int], float] = {}
    for turn in range(rounds + 1):
        for side, metrics in tried.items():
            for place, metric in enumerate(metrics):
                took, values[side, place] = timed(metric, scores, labels)
                if turn:
                    seconds.setdefault((side, place), []).append(took)
    reference = list(tried)[-1]
    rows = []
    for side in tried:
        cells = [f"{statistics.median(seconds[side, place]):.3f}" for place in range(2)]
        apart = max(abs(values[side, place] - values[reference, place]) for place in range(2))
        difference = "–" if side == reference else f"{apart:.0e}" if apart else "0"
        rows.append([f"{classes:,}", side, *cells, difference])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small case, nothing saved")
    options = parser.parse_args()
    if options.quick:
        options.images, options.classes, options.rounds = 400, [20], 1
    torch.set_num_threads(1)
    rows = [
        row for each in options.classes for row in measure(options.images, each, options.rounds)
    ]
    header = ["classes", "side", *(f"{name}, s" for name in NAMES), "largest difference"]
    text = (
        f"{table(header, rows)}\n\nCPU seconds of one thread, median of {options.rounds} rounds; "
        "the difference is that of either metric from scikit-learn's."
    )
    complete = find_spec("torchmetrics") is not None
    if not complete:
        text += "\n\nWithout torchmetrics: it is not installed."
    title = f"Ranking metrics of {options.images:,} images"
    publish("metrics", title, text, save=complete and not options.quick)


if __name__ == "__main__":
    main()
