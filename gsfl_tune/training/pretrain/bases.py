"""Self-supervised methods: heads and losses of lightly around a backbone's representation."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.pretrain_config import PretrainConfig
from gsfl_tune.training.pretrain.base import Base, Given, across, rising, start_average
from gsfl_tune.training.pretrain.key_queue import KeyQueue


class SimSiam(Base):
    """Predicts one view from the other, whose gradient is stopped.

    Source: Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021, equation 2.
    """

    def build(self) -> None:
        """Makes projection and prediction heads."""
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead

        hidden, out = self.config.hidden_dim, self.config.projection_dim
        self.project = SimSiamProjectionHead(self.channels, hidden, out)
        self.predict = SimSiamPredictionHead(out, max(2, out // 4), out)
        self.compare = NegativeCosineSimilarity()

    def loss(self, given: Given) -> tuple[Tensor, Tensor]:
        """Computes the mean of the negative cosines of each view with each other large one."""
        projected = [self.project(view) for view in given.views]
        predicted = [self.predict(each) for each in projected]
        predicted += [self.predict(self.project(view)) for view in given.local]
        loss = across(self.compare, predicted, [each.detach() for each in projected])
        return loss, projected[0]


class Byol(Base):
    """Predicts the averaged network's projection of the other view.

    Source: Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020, equation 2; up to a constant
    and a factor, negative cosines.
    """

    taught = (0, 1)

    def build(self) -> None:
        """Makes heads, and the average of the projection head."""
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead

        hidden, out = self.config.hidden_dim, self.config.projection_dim
        self.project = BYOLProjectionHead(self.channels, hidden, out)
        self.teach = BYOLProjectionHead(self.channels, hidden, out)
        self.predict = BYOLPredictionHead(out, hidden, out)
        self.compare = NegativeCosineSimilarity()
        start_average(self.project, self.teach)

    def loss(self, given: Given) -> tuple[Tensor, Tensor]:
        """Computes the mean of the negative cosines of each view with each other large one."""
        projected = [self.project(view) for view in (*given.views, *given.local)]
        predicted = [self.predict(each) for each in projected]
        with torch.no_grad():
            targets = [self.teach(view) for view in given.taught]
        return across(self.compare, predicted, targets), projected[0]

    def momentum(self, progress: float) -> float:
        """Returns the decay, which rises to 1 as half a cosine."""
        return rising(self.config.teacher_momentum, progress)

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Lists the projection head with its average."""
        return [(self.project, self.teach)]


class Moco(Base):
    """Finds the averaged network's projection of the other view among those of earlier images.

    Source: Chen et al., "Improved Baselines with Momentum Contrastive Learning" (MoCo v2),
    arXiv 2003.04297; the first view is the query, the second one the key. Ours: earlier keys of the
    query's own image are left out, see `KeyQueue`. For its batch norms see `norm_groups`.
    """

    shown = (0,)
    taught = (1,)

    def build(self) -> None:
        """Makes heads and the queue."""
        from lightly.models.modules import MoCoProjectionHead

        config = self.config
        hidden, out = config.hidden_dim, config.projection_dim
        self.project = MoCoProjectionHead(self.channels, hidden, out)
        self.teach = MoCoProjectionHead(self.channels, hidden, out)
        start_average(self.project, self.teach)
        self.queue = KeyQueue(min(config.queue, self.images), out)

    def loss(self, given: Given) -> tuple[Tensor, Tensor]:
        """Computes the cross-entropy of the key among the queue; the keys join it.

        Small views are queries too, with the key of the large one: the mean of all is returned.
        """
        with torch.no_grad():
            keys = self.teach(given.taught[0])
        positions, temperature = given.positions, self.config.temperature or 0.2
        queries = [self.project(view) for view in (*given.views, *given.local)]
        losses = [self.queue.loss(each, keys, positions, temperature) for each in queries]
        self.queue.add(keys, positions)
        return torch.stack(losses).mean(), queries[0]

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Lists the projection head with its average."""
        return [(self.project, self.teach)]


class VicReg(Base):
    """Keeps the variance of every dimension, and dimensions apart.

    Source: Bardes et al., "VICReg", ICLR 2022, as in the program of its authors: 25 times the mean
    squared distance over images and dimensions, 25 times the mean of both variance terms, and both
    covariance terms. In equation 6 the distance is summed over D dimensions and the variance terms
    are added: its weights would be 25 / D, 12.5 and 1.
    """

    takes_local = False

    def build(self) -> None:
        """Makes the projection head."""
        from lightly.loss import VICRegLoss
        from lightly.models.modules import BarlowTwinsProjectionHead

        config = self.config
        # VICReg's expander has the layers of this head.
        self.project = BarlowTwinsProjectionHead(
            self.channels, config.hidden_dim, config.projection_dim
        )
        self.compare = VICRegLoss()

    def loss(self, given: Given) -> tuple[Tensor, Tensor]:
        """Computes the sum of invariance, variance and covariance."""
        one, other = (self.project(view) for view in given.views)
        return self.compare(one, other), one


class Dino(Base):
    """Learns the averaged network's distribution over prototypes of the other view.

    Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021,
    equation 3; small views are the student's alone.
    """

    taught = (0, 1)

    def build(self) -> None:
        """Makes heads and the centre."""
        from lightly.loss import DINOLoss
        from lightly.models.modules import DINOProjectionHead

        config = self.config

        def head() -> Any:
            return DINOProjectionHead(
                self.channels,
                config.hidden_dim,
                config.projection_dim,
                config.prototypes,
                freeze_last_layer=1,
            )

        with warnings.catch_warnings():
            # Of torch, about how lightly normalises weights.
            warnings.simplefilter("ignore", FutureWarning)
            self.project, self.teach = head(), head()
        self._head: Any = self.project
        start_average(self.project, self.teach)
        self.compare = DINOLoss(
            output_dim=config.prototypes,
            warmup_teacher_temp=config.teacher_temperature,
            teacher_temp=config.teacher_temperature,
            warmup_teacher_temp_epochs=1,
            student_temp=config.temperature or 0.1,
        )

    def loss(self, given: Given) -> tuple[Tensor, Tensor]:
        """Computes the mean of the cross-entropies; the teacher's outputs move the centre."""
        students = [self.project(view) for view in (*given.views, *given.local)]
        with torch.no_grad():
            teachers = [self.teach(view) for view in given.taught]
        # Roots of the shares of prototypes are unit vectors. They are compared in place of outputs,
        # which may have a large part in common without a collapse.
        shares = (students[0].detach() / self.compare.student_temp).softmax(1)
        return self.compare(teachers, students), shares.sqrt()

    def momentum(self, progress: float) -> float:
        """Returns the decay, which rises to 1 as half a cosine."""
        return rising(self.config.teacher_momentum, progress)

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Lists the head with its average."""
        return [(self.project, self.teach)]

    def after_backward(self, epoch: int) -> None:
        """Keeps the prototypes as they are in the first epoch."""
        self._head.cancel_last_layer_gradients(epoch)


class LeJepa(Base):
    """Makes projections of all views alike, and their distribution an isotropic Gaussian.

    Source: Balestriero and LeCun, "LeJEPA", arXiv 2511.08544: all views come near the mean of the
    large ones.
    """

    def build(self) -> None:
        """Makes the projection head and the regulariser."""
        from lightly.loss import SIGReg
        from lightly.models.modules import LeJEPAProjectionHead

        config = self.config
        self.project = LeJEPAProjectionHead(self.channels, config.hidden_dim, config.projection_dim)
        self.gaussian = SIGReg()

    def loss(self, given: Given) -> tuple[Tensor, Tensor]:
        """Computes the weighted mean of the sketched distance and the squared distance."""
        from lightly.loss.lejepa_loss import lejepa_invariance_loss

        every = torch.stack([self.project(view) for view in (*given.views, *given.local)])
        weight = self.config.sketch_weight
        apart = lejepa_invariance_loss(all_proj=every, global_proj=every[: len(given.views)])
        return weight * self.gaussian(every) + (1 - weight) * apart, every[0]


BASES: dict[str, type[Base]] = {
    "simsiam": SimSiam,
    "byol": Byol,
    "moco": Moco,
    "vicreg": VicReg,
    "dino": Dino,
    "lejepa": LeJepa,
}


def create_base(channels: int, config: PretrainConfig, images: int) -> Base:
    """Creates the method of a configuration; for arguments see `Base`.

    Raises:
        UserError: If lightly is missing.
    """
    if problem := lightly_problem():
        raise UserError(f"pretrain.method: {problem}")
    return BASES[config.method](channels, config, images)


def lightly_problem() -> str | None:
    """Says what is missing for losses and heads, or None."""
    if find_spec("lightly") is None:
        return (
            "learning without labels needs lightly: run  pip install 'gsfl-tune[ssl]'  or "
            "pip install --no-deps lightly"
        )
    return None
