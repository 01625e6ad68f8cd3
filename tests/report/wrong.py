"""Wrong answers for pages, and images that are in memory."""

from __future__ import annotations

import numpy as np


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
