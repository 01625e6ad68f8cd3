"""Wrong answers for pages, and images that are in memory."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from gsfl_tune.evidence.nearest import Nearest


def wrong_answers(count):
    return {
        "count": count + 3,
        "images": [
            {
                "image": n,
                "path": f"gulls/{n}.jpg",
                "label": n % 4,
                "predicted": (n % 4 + 1) % 5,
                "confidence": 1 - n / 100,
                "probability": 0.01,
            }
            for n in range(count)
        ],
    }


class Squares:
    """Decoded images that are in memory."""

    def __init__(self, pixels):
        self._pixels = pixels.astype(np.uint8)

    def gather(self, index):
        return self._pixels[index]


class TrainingSquares(Squares):
    """Training images of one colour each, or of noise around it."""

    def __init__(self, count, noise):
        random = np.random.default_rng(1)
        self.colours = random.integers(20, 235, (count, 3))
        pixels = np.broadcast_to(self.colours[:, None, None], (count, 64, 64, 3))
        super().__init__(random.integers(0, 255, pixels.shape) if noise else pixels)
        self.paths = [f"/home/anna/birds/train/{n}.jpg" for n in range(count)]


def many_wrong(count, classes, *, noise=False):
    """Wrong answers, their images, and training images near them: two for each."""
    listed = [
        {
            "image": n,
            "path": f"gulls/{n}.jpg",
            "label": n % classes,
            "predicted": (n + 1 + n // classes) % classes,
            "confidence": 1 - n / 1000,
            "probability": 0.01,
        }
        for n in range(count)
    ]
    pool, test = TrainingSquares(2 * count, noise), TrainingSquares(count, noise)
    order = np.random.default_rng(0).permutation(2 * count)
    compared = dict.fromkeys(range(classes), (30, 45))
    nearest = Nearest(order[:count], order[count:], compared)
    dataset = SimpleNamespace(test=test, pool=pool)
    return {"count": count, "images": listed}, dataset, nearest
