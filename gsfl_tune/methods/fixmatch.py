"""FixMatch: confident predictions of images without labels become their labels.

Source: Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and
Confidence", NeurIPS 2020, equations 3 and 4: for images u without a label, of which w(u) is a
weakly and s(u) a strongly changed view, ``1[max p(w(u)) > threshold] CE(p(s(u)), argmax p(w(u)))``,
averaged over all of them, is added to the loss of weakly changed views of the labelled images.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.nn import functional

from gsfl_tune.data import Batch
from gsfl_tune.losses import LossTerms
from gsfl_tune.methods._base import Method, Passes


class FixMatch(Method):
    """Adds weight * cross-entropy of confident pseudo-labels to the loss of labelled images.

    The weak view gives the label, without a gradient, as the network in training computes it; the
    strong view is trained on it. The head stage, whose features have no strong view, trains on the
    labelled images alone.

    Args:
        weight: Of the pseudo-labels.
        threshold: Probability above which a prediction is a label.
        mu: Images without labels for each labelled one.
    """

    unlabelled = 1
    weak_labelled: ClassVar[bool] = True

    def __init__(self, weight: float, threshold: float, mu: int) -> None:
        super().__init__()
        self.weight = weight
        self.threshold = threshold
        self.unlabelled = mu

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Computes the loss of labelled images and pseudo-labels."""
        features = passes.features(batch.inputs)
        terms = passes.loss(passes.head(features), features, batch.targets)
        if batch.unlabelled is None:
            return terms
        weak, strong = batch.unlabelled
        with torch.no_grad():
            sure, labels = passes.infer(passes.features(weak)).softmax(dim=1).max(dim=1)
            kept = sure > self.threshold
        scores = passes.infer(passes.features(strong))
        losses = functional.cross_entropy(scores, labels, reduction="none")
        terms = terms.plus("pseudo", self.weight, (losses * kept).mean())
        # Recorded: where none is confident, none is trained on.
        return terms.plus("pseudo_share", 0.0, kept.to(losses.dtype).mean())
