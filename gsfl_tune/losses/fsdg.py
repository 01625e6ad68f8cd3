"""The four terms of a head of common, specific and confounding parts.

Source: Yu, Chen, Wang and Hu, "Fine-Grained Domain Generalization with Feature Structuralization",
arXiv 2406.09166. Features are structured into common, specific and confounding segments by a
decorrelation of these segments, by constraints on the consistency of the common and the
distinctiveness of the specific part, and by a calibration of predictions across granularities.

What is written here follows the abstract; the equations are this project's own. The discriminative
part d has the common part c in its first half and the specific part p in the other; both are read
by the classifier. The confounding part n comes from an encoder of its own, which nothing but the
decorrelation trains and no prediction needs. The coarse granularity are groups of classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gsfl_tune.losses._base import LossInput, LossTerm, Sizes, Weighted

_TINY = 1e-12


def segments(discriminative: Tensor) -> tuple[Tensor, Tensor]:
    """Divides discriminative parts (B, H) into common (B, H // 2) and specific parts."""
    size = discriminative.shape[1] // 2
    return discriminative[:, :size], discriminative[:, size:]


class Decorrelation(LossTerm):
    """Sums over pairs of the parts c, p, n the mean squared correlation of their dimensions.

    Correlations are over the images of a batch, so the scale of a part does not matter. Those of a
    dimension that is the same for all images count 0.

    Args:
        feature_scale: The encoder of n sees feature_scale * f, as that of d does.
    """

    confounding: nn.Sequential

    def __init__(self, feature_scale: float = 1.0) -> None:
        super().__init__()
        self.feature_scale = feature_scale

    def build(self, sizes: Sizes) -> None:
        """Makes the encoder of n: linear D -> H/2, linear H/2 -> H/2, ReLU."""
        size = sizes.latent_dim // 2
        self.confounding = nn.Sequential(
            nn.Linear(sizes.feature_dim, size), nn.Linear(size, size), nn.ReLU()
        )

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term."""
        common, specific = segments(batch.discriminative)
        n = self.confounding(self.feature_scale * batch.features)
        parts = [_standardised(each) for each in (common, specific, n)]
        total = common.new_zeros(())
        for one, other in combinations(parts, 2):
            total = total + (one.T @ other / len(one)).square().mean()
        return total


class Consistency(LossTerm):
    """Computes the mean of 1 - cos(c_i, c_j) over pairs of images of one group."""

    def build(self, sizes: Sizes) -> None:
        """Keeps the groups of the classes."""
        _keep_groups(self, sizes)

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term; 0 without such a pair."""
        common, _ = segments(batch.discriminative)
        groups = _groups(self)[batch.labels]
        apart = 1 - _cosines(common)
        return _mean(apart, groups[:, None] == groups[None])


class Specificity(LossTerm):
    """Computes the mean of max(0, cos(p_i, p_j)) over pairs of one group, of different classes."""

    def build(self, sizes: Sizes) -> None:
        """Keeps the groups of the classes."""
        _keep_groups(self, sizes)

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term; 0 without such a pair."""
        _, specific = segments(batch.discriminative)
        labels, groups = batch.labels, _groups(self)[batch.labels]
        pairs = (groups[:, None] == groups[None]) & (labels[:, None] != labels[None])
        return _mean(_cosines(specific).clamp(min=0), pairs)


class GranularityCalibration(LossTerm):
    """Calibrates the prediction of classes by that of groups.

    A linear classifier reads the group off the common part c, with probabilities u. q are the
    probabilities that the scores of the classes give to the groups. The term is
    ``-log u_g + sum_k u_k log(u_k / q_k)`` with the group g of the label: u learns the groups, and
    both granularities agree.
    """

    classifier: nn.Linear
    members: Tensor

    def build(self, sizes: Sizes) -> None:
        """Makes the classifier of groups."""
        _keep_groups(self, sizes)
        groups = _groups(self)
        count = int(groups.max()) + 1
        self.classifier = nn.Linear(sizes.latent_dim // 2, count)
        self.register_buffer("members", F.one_hot(groups, count).float(), persistent=False)

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term."""
        common, _ = segments(batch.discriminative)
        coarse = self.classifier(common).log_softmax(dim=1)
        fine = batch.logits.softmax(dim=1) @ self.members.to(batch.logits.dtype)
        apart = coarse.exp() * (coarse - fine.clamp(min=_TINY).log())
        return F.nll_loss(coarse, _groups(self)[batch.labels]) + apart.sum(dim=1).mean()


def fsdg_terms(
    *,
    decorrelation: float,
    consistency: float,
    specificity: float,
    calibration: float,
    feature_scale: float = 1.0,
) -> dict[str, Weighted]:
    """Creates the terms of a head of common, specific and confounding parts.

    Args:
        decorrelation: Weight of the decorrelation of the three parts.
        consistency: Weight of the consistency of common parts in a group.
        specificity: Weight of the distinctiveness of specific parts in a group.
        calibration: Weight of the agreement of predictions of groups and of classes.
        feature_scale: Scale of the features that the encoders see.
    """
    return {
        "fsdg_decorrelation": Weighted(decorrelation, Decorrelation(feature_scale)),
        "fsdg_consistency": Weighted(consistency, Consistency()),
        "fsdg_specificity": Weighted(specificity, Specificity()),
        "fsdg_calibration": Weighted(calibration, GranularityCalibration()),
    }


def head_terms(loss: Mapping[str, Any], feature_scale: float) -> dict[str, Weighted]:
    """Creates the terms of such a head from the section ``loss``.

    Args:
        loss: The section.
        feature_scale: Scale of the features that the encoders see.
    """
    return fsdg_terms(**loss["fsdg"], feature_scale=feature_scale)


def count_parameters(feature_dim: int, latent_dim: int, groups: int) -> int:
    """Counts the parameters of the encoder of confounding parts and of the classifier of groups."""
    size = latent_dim // 2
    return feature_dim * size + size + size * size + size + groups * (size + 1)


def _keep_groups(term: LossTerm, sizes: Sizes) -> None:
    if sizes.groups is None:
        raise ValueError("common and specific parts need groups of the classes")
    term.register_buffer("groups", sizes.groups.clone(), persistent=False)


def _groups(term: LossTerm) -> Tensor:
    groups: Tensor = term.get_buffer("groups")
    return groups


def _standardised(part: Tensor) -> Tensor:
    """Returns columns of mean 0 and variance 1 over the batch; constant ones become 0."""
    centred = part - part.mean(dim=0)
    variance = centred.square().mean(dim=0)
    varies = variance > _TINY
    return centred * varies * variance.clamp(min=_TINY).rsqrt()


def _cosines(part: Tensor) -> Tensor:
    """Returns the cosines (B, B) of all pairs of rows."""
    unit = F.normalize(part, dim=1)
    return unit @ unit.T


def _mean(values: Tensor, pairs: Tensor) -> Tensor:
    """Returns the mean of values (B, B) over pairs of different images; 0 if there are none."""
    chosen = torch.triu(pairs, diagonal=1)
    return (values * chosen).sum() / chosen.sum().clamp(min=1)
