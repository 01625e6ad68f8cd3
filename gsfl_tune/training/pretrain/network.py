"""What is trained without labels: a backbone, the heads of a method, and further strategies."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.experiment.pretrain_config import PretrainConfig
from gsfl_tune.models import Backbone
from gsfl_tune.models.pooling.screened import ScreenedPooling
from gsfl_tune.training.batch_norm import synchronise_batch_norms
from gsfl_tune.training.pretrain.base import Vectors, unchanged
from gsfl_tune.training.pretrain.bases import create_base
from gsfl_tune.training.pretrain.discriminative import Discriminative
from gsfl_tune.training.pretrain.gradcam import gradients
from gsfl_tune.training.pretrain.joint import JointBatch
from gsfl_tune.training.pretrain.norm_groups import (
    groups_of,
    maps_in_groups,
    shuffled,
    statistics,
)
from gsfl_tune.training.pretrain.screening import Screening
from gsfl_tune.training.seeds import named_seed


class PretrainingNetwork(nn.Module):
    """Joins everything with weights, and computes the loss of a batch.

    A representation is the mean of the backbone's map over its positions.

    Args:
        backbone: The backbone, at its start; all of its blocks are trained.
        config: Section ``pretrain``.
        image_size: Side of the views in pixels.
        images: Number of images.
        autocast: Whether the backbone and the decoder compute in bf16.

    Attributes:
        joint: Makes batches of several processes whole, see `join`.
        groups: Groups of a batch in which the batch norms of the backbone take their statistics.
        projected: Projections (B, D) of the first view in the last batch, without gradient.

    Raises:
        UserError: If a package is missing.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: PretrainConfig,
        image_size: int,
        images: int,
        *,
        autocast: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.projected: Tensor = torch.empty(0)
        self.autocast = autocast
        self.joint = JointBatch()
        self.backbone = backbone
        self.groups = groups_of(config, backbone)
        backbone.train_last("all")
        channels = backbone.channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(named_seed(config.seed, "base"))
            self.base = create_base(channels, config, images)
            self.teacher = copy.deepcopy(backbone) if self.base.taught else None
            if self.teacher is not None:
                self.teacher.requires_grad_(False)
            # Seeds of their own: a strategy must not change the method's weights.
            torch.manual_seed(named_seed(config.seed, "discriminative"))
            own = config.discriminative
            self.discriminative = (
                Discriminative(channels, image_size, own, self._computing) if own.on else None
            )
            torch.manual_seed(named_seed(config.seed, "lcr"))
            self.screening = Screening(channels, config.lcr) if config.lcr.weight > 0 else None

    def join(self, joint: JointBatch) -> None:
        """Divides batches between processes; `terms` then gives this process' parts of the loss.

        Batch norms of the heads see whole batches by themselves; those of everything that maps or
        images pass through take the statistics of all processes. Only groups of a batch that have
        statistics of their own stay within a process.
        """
        self.joint = joint
        if self.discriminative is not None:
            self.discriminative.joint = joint
        self.train()
        own = (self.backbone, self.teacher) if self.groups == 1 else ()
        for each in (*own, self.discriminative, self.screening):
            if each is not None:
                synchronise_batch_norms(each)

    def terms(
        self,
        views: Sequence[Tensor],
        generator: torch.Generator,
        *,
        paired: bool,
        local: Sequence[Tensor] = (),
        positions: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Computes the terms of the loss of a batch.

        Args:
            views: Two views (b, 3, s, s) of this process' images.
            generator: Source of perturbations.
            paired: Whether pairs of decoded images are used.
            local: Small views (B, 3, t, t) of the images. The backbone alone sees them; pairs,
                scores of dimensions and common rationales are those of the two large ones.
            positions: (b,) int64, which images they are.

        Returns:
            The sum to be trained; its parts without their weights; and the representations (B, C)
            of the first view. Of several processes each has its part of the sum and of every part;
            the representations are those of the whole batch.
        """
        config, own = self.config, self.config.discriminative
        joint = self.joint
        images = None if positions is None else joint.rows(positions.to(views[0].device))
        maps = [self._maps(self.backbone, views[place]) for place in self.base.shown]
        vectors = [each.mean(dim=(2, 3)) for each in maps]
        whole = [joint.rows(each) for each in vectors]
        base = joint.part(self._base(whole, self._taught(views), self._local(local), images))
        self.projected = self.base.projected
        parts, loss = {"base": base}, base
        slopes = []
        if self.discriminative or self.screening:
            slopes = gradients(base, maps, joint.count(maps[0]))
        if self.discriminative is not None:
            self.discriminative.observe(whole, maps, slopes)
            pair = partial(self._pair, images) if paired and own.pair_weight > 0 else None
            found = self.discriminative.terms(vectors[0], views[0], generator, pair)
            # The decoder learns with weight 1, and gives alpha times its gradient to the backbone.
            loss = loss + found["reconstruction"]
            if "pair" in found:
                loss = loss + own.pair_weight * found["pair"]
            parts |= found
        if self.screening is not None:
            each = [
                self.screening.divergence(map_, slope)
                for map_, slope in zip(maps, slopes, strict=True)
            ]
            parts["screening"] = joint.part_of_mean(torch.stack(each).mean())
            loss = loss + config.lcr.weight * parts["screening"]
        if self.groups > 1:
            for module in (self.backbone, self.teacher):
                joint.take_means([] if module is None else statistics(module))
        return loss, parts, whole[0].detach()

    def weighted(self, terms: Mapping[str, float]) -> float:
        """Returns L of means of the terms: base + alpha reconstruction + nu pair + screening."""
        own = self.config.discriminative
        weights = {
            "base": 1.0,
            "reconstruction": own.reconstruction_weight,
            "pair": own.pair_weight,
            "screening": self.config.lcr.weight,
        }
        return sum(weights[name] * value for name, value in terms.items())

    @torch.no_grad()
    def average(self, progress: float) -> None:
        """Moves the averaged network; `progress` is the share of the steps that are done."""
        from lightly.models.utils import update_momentum

        if self.teacher is None:
            return
        decay = self.base.momentum(progress)
        for module, mean in ((self.backbone, self.teacher), *self.base.pairs()):
            update_momentum(module, mean, decay)

    @torch.no_grad()
    def representation(self, images: Tensor, *, screened: bool = False) -> Tensor:
        """Returns unit representations (B, C) of images, in the mode of the modules.

        Args:
            images: (B, 3, s, s), normalised.
            screened: Whether places are weighted by the screening head, as it is evaluated.
        """
        maps = self._maps(self.backbone, images)
        if screened:
            assert self.screening is not None
            # As `model.pooling: screened` of the learned weights.
            pooling = ScreenedPooling(self.backbone.channels)
            pooling.take(*self.screening.folded())
            return functional.normalize(pooling(maps), dim=1)
        return functional.normalize(maps.mean(dim=(2, 3)), dim=1)

    def agreement_maps(self, images: Tensor) -> Tensor:
        """Returns how much places (B, h, w) move the agreement of images with their mirror images.

        They are Grad-CAM maps without their last step: the size of the sum over channels counts,
        not its positive part alone, as a place may also make both representations less alike.
        Modules are in evaluation mode afterwards; queues, centres and statistics stay as they are.

        Args:
            images: (B, 3, s, s), normalised; at least two.
        """
        self.eval()
        views = [images, images.flip(3)]
        with torch.random.fork_rng(devices=[]), unchanged(self):
            torch.manual_seed(0)  # of the slices of `lejepa`
            maps = [self._maps(self.backbone, views[place]) for place in self.base.shown]
            loss = self.base([each.mean(dim=(2, 3)) for each in maps], self._taught(views))
            slopes = gradients(loss, maps)
        weights = slopes[0].mean(dim=(2, 3), keepdim=True)
        return (weights * maps[0].detach()).sum(1).abs()

    @torch.no_grad()
    def decoded(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Decodes images (B, 3, t, t), normalised, of representations, and of perturbed ones.

        Args:
            images: (B, 3, s, s), normalised.
            generator: Source of the perturbation.
        """
        assert self.discriminative is not None
        self.eval()
        vectors = self._maps(self.backbone, images).mean(dim=(2, 3))
        return self.discriminative.decoded(vectors, generator)

    def _maps(self, backbone: Backbone, images: Tensor) -> Tensor:
        [maps] = self._together(backbone, [images])
        return maps

    def _together(self, backbone: Backbone, views: Sequence[Tensor]) -> list[Tensor]:
        """Returns maps of views of the same images, which pass a backbone together."""

        def forward(images: Tensor) -> Tensor:
            with self._computing():
                return backbone(images).float()

        if self.groups == 1 or not backbone.training:
            if len(views) == 1:
                return [forward(views[0])]
            return list(forward(torch.cat(list(views))).split(len(views[0])))
        parts = self.joint.parts(views[0], self.groups)
        return maps_in_groups(forward, backbone, views, parts)

    def _computing(self) -> AbstractContextManager[object]:
        if not self.autocast:
            return nullcontext()
        device = next(self.backbone.parameters()).device.type
        return torch.autocast(device, dtype=torch.bfloat16)

    def _local(self, views: Sequence[Tensor]) -> Sequence[Tensor]:
        """Returns representations (B, C) of small views, which pass the backbone together."""
        if not len(views):
            return ()
        maps = self._together(self.backbone, views)
        return [self.joint.rows(each.mean(dim=(2, 3))) for each in maps]

    def _base(
        self,
        vectors: Vectors,
        taught: Vectors,
        local: Vectors = (),
        positions: Tensor | None = None,
    ) -> Tensor:
        """Returns the loss of the method, of a whole batch."""
        whole = [self.joint.rows(each) for each in taught]
        with self.joint.drawing():
            loss: Tensor = self.base(vectors, whole, local, positions)
        return loss

    @torch.no_grad()
    def _taught(self, views: Sequence[Tensor]) -> list[Tensor]:
        if self.teacher is None:
            return []
        if self.groups == 1 or not self.teacher.training:
            return [self._maps(self.teacher, views[n]).mean(dim=(2, 3)) for n in self.base.taught]
        return [self._keys(self.teacher, views[n]) for n in self.base.taught]

    def _keys(self, teacher: Backbone, images: Tensor) -> Tensor:
        """Returns representations (b, C) of images whose groups are not those of the queries."""
        whole = self.joint.rows(images)
        order = shuffled(len(whole), self.groups, images.device)
        own = self.joint.own(whole[order]).contiguous(memory_format=torch.channels_last)
        found = self.joint.rows(self._maps(teacher, own).mean(dim=(2, 3)))
        return self.joint.own(found[order.argsort()])

    def _pair(self, positions: Tensor | None, one: Tensor, other: Tensor) -> Tensor:
        """Compares decoded images; statistics, queues and centres stay those of photographs.

        Args:
            positions: Which images the whole batch is of.
            one: Images decoded of the representations.
            other: Images decoded of the perturbed ones.
        """
        kind = self.config.discriminative.pair_loss
        modules = [self.backbone, self.base, *([self.teacher] if self.teacher is not None else [])]
        with unchanged(*modules):
            images = (one, other)
            if kind == "base":
                maps = [self._maps(self.backbone, images[place]) for place in self.base.shown]
                vectors = [each.mean(dim=(2, 3)) for each in maps]
                whole = [self.joint.rows(each) for each in vectors]
                loss = self._base(whole, self._taught(images), positions=positions)
                return self.joint.part(loss)
            first, second = (self._maps(self.backbone, each).mean(dim=(2, 3)) for each in images)
        if kind == "cosine":
            return self.joint.part_of_mean((1 - functional.cosine_similarity(first, second)).mean())
        apart = functional.normalize(first, dim=1) - functional.normalize(second, dim=1)
        return self.joint.part_of_mean(apart.square().sum(1).mean())


def spread(vectors: Tensor) -> Tensor:
    """Returns the deviation of unit representations, 0 (collapsed) to 1, of vectors (B, C).

    It is the root of the sum of the variances of all dimensions.
    """
    unit = functional.normalize(vectors.float(), dim=1)
    return (unit - unit.mean(0)).square().sum(1).mean().sqrt()


def typical_spread(vectors: Tensor) -> Tensor:
    """Returns the distance of unit vectors, made of (B, D), from where most of them are.

    It is the median of the distances from the medians of all dimensions: 0 where more than half of
    the images have the same vector. A batch norm at the end of a projection keeps the variance of a
    collapsed batch up: all images but one get the same vector, and `spread` is 2 / sqrt(B).
    """
    unit = functional.normalize(vectors.float(), dim=1)
    return (unit - unit.median(0).values).norm(dim=1).median()
