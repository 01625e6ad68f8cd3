"""Losses of metric learning, as pytorch-metric-learning computes them.

Sources: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019;
Deng et al., "Sub-center ArcFace", ECCV 2020; Kim et al., "Proxy Anchor Loss for Deep Metric
Learning", CVPR 2020; Qian et al., "SoftTriple Loss: Deep Metric Learning Without Triplet Sampling",
ICCV 2019.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

from torch import Tensor, nn

from gsfl_tune.losses._base import LossInput, LossTerm, Sizes
from gsfl_tune.plugins import PluginError

Kind = Literal["arcface", "subcenter_arcface", "proxy_anchor", "soft_triple"]

# Names in the library: of the loss, and of its scale and its centres of a class.
_KINDS: dict[str, tuple[str, str, str | None]] = {
    "arcface": ("ArcFaceLoss", "scale", None),
    "subcenter_arcface": ("SubCenterArcFaceLoss", "scale", "sub_centers"),
    "proxy_anchor": ("ProxyAnchorLoss", "alpha", None),
    "soft_triple": ("SoftTripleLoss", "la", "centers_per_class"),
}


class MetricLearning(LossTerm):
    """Computes a loss of the angles between d and learned proxies of the classes.

    Proxies are parameters: they are trained with the head, and are in checkpoints. Prediction does
    not need them.

    Args:
        kind: Which loss.
        scale: Of the cosines; None is the library's, as published.
        margin: Of the loss, in degrees for the two ArcFace losses; None is the library's.
        centers: Of a class, for ``subcenter_arcface`` and ``soft_triple``; None is the library's.
    """

    any_head = True
    metric: nn.Module

    def __init__(
        self,
        kind: Kind = "arcface",
        scale: float | None = None,
        margin: float | None = None,
        centers: int | None = None,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.scale = scale
        self.margin = margin
        self.centers = centers

    def build(self, sizes: Sizes) -> None:
        """Makes the proxies.

        Raises:
            PluginError: If the library is not installed.
        """
        if missing := metric_learning_problem(1.0):
            raise PluginError(f"loss.metric_learning: {missing}")
        from pytorch_metric_learning import losses

        name, scale, centers = _KINDS[self.kind]
        settings: dict[str, Any] = {scale: self.scale, "margin": self.margin}
        if centers is not None:
            settings[centers] = self.centers
        given = {key: value for key, value in settings.items() if value is not None}
        self.metric = getattr(losses, name)(
            num_classes=sizes.class_count, embedding_size=sizes.latent_dim, **given
        )

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term."""
        value: Tensor = self.metric(batch.discriminative, batch.labels)
        return value


def metric_learning_problem(weight: float) -> str | None:
    """Says what keeps the term from being used at a weight, or None."""
    if not weight or find_spec("pytorch_metric_learning"):
        return None
    return (
        f"found {weight:g}, but pytorch-metric-learning is not installed: run  pip install "
        "'gsfl-tune[metric-learning]', or set it to 0"
    )
