"""A small model of images whose passes are plain, for tests of methods that look at maps."""

from __future__ import annotations

import torch
from torch.nn import functional

from gsfl_tune.data import Batch, Targets
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods import Passes
from gsfl_tune.models import HeadOutput

CLASSES, CHANNELS = 4, 6


class Model:
    """A convolution, the mean, and a linear head; it remembers what it was shown."""

    def __init__(self, stride=2, drawn=None):
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, CHANNELS, 3, stride=stride, padding=1).double()
        self.layer = torch.nn.Linear(CHANNELS, CLASSES).double()
        self.drawn = drawn
        self.shown, self.noted, self.widths = [], [], []

    def maps(self, images):
        self.shown.append(images.detach().clone())
        return self.conv(images).relu()

    def pool(self, maps, *, fixed_length=False):
        vectors = maps.mean((2, 3))
        length = vectors.norm(dim=1, keepdim=True)
        return vectors / (length.detach() if fixed_length else length)

    def features(self, images):
        return self.pool(self.maps(images))

    def head(self, features):
        return HeadOutput(self.layer(features), features, None, None)

    def loss(self, output, features, targets, *, note=True):
        self.noted.append((note, targets.labels.clone()))
        value = self.cross_entropy(output.logits, targets)
        return LossTerms(value + 0.5, value, {"half": torch.tensor(0.5)})

    def cross_entropy(self, logits, targets):
        each = functional.cross_entropy(logits, targets.labels, reduction="none")
        return (each if targets.weights is None else each * targets.weights).mean()

    def draws(self, positions, width):
        self.widths.append(width)
        return self.drawn[positions, :width]

    def passes(self, **others):
        return Passes(
            self.features,
            self.head,
            self.layer,
            self.loss,
            maps=self.maps,
            pool=self.pool,
            cross_entropy=self.cross_entropy,
            draws=self.draws,
            **others,
        )


def batch(count, height, width, seed=1):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, height, width, generator=generator, dtype=torch.float64)
    labels = torch.arange(count) % CLASSES
    return Batch((images,), Targets(labels), torch.arange(count))
