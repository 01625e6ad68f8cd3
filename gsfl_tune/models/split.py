"""A backbone in two parts: a frozen prefix that runs once per image, and a trained suffix."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from gsfl_tune.models._blocks import trained_names
from gsfl_tune.models._boundary import CannotCut, cut_in_front, require_clean_cut, run_prefix
from gsfl_tune.models._facts import BackboneFacts, cut, read, to_map
from gsfl_tune.models._probe import probe
from gsfl_tune.models._reads import Reads, features_of, run
from gsfl_tune.models.adapters import original_name
from gsfl_tune.models.frozen import frozen_forward
from gsfl_tune.models.frozen_forward import FrozenForward, Precision
from gsfl_tune.models.streams import second_layer_of, stream_names
from gsfl_tune.models.two_layers import TwoLayers

# Largest deviation of the suffix from the whole model, relative to the largest value of the map.
_TOLERANCE = 1e-5


class SplitBackbone:
    """Splits a backbone in a frozen and a trained part: ``suffix(prefix(images))`` is its output.

    Both parts share the modules of the backbone, so they follow its mode and its training. It is
    made for one image size; moving the backbone to another device afterwards is an error.

    Args:
        backbone: A `gsfl_tune.models.Backbone`; it is cut before the first block with trainable
            parameters.
        image_size: Side of the images in pixels.

    Attributes:
        shape: Shape of one image's activations at the boundary; those of two streams are flattened
            and joined, and so is a second layer in front of it.
        channels_last: Whether these are (C, h, w) maps with the channels last in memory.
        gives_map: Whether what the pooling reads follows from `maps`. It does not where tokens are
            read beside the map, or the cut is behind the map, in the model's own head.

    Raises:
        CannotCut: If the parts do not give the output of the whole backbone.
    """

    shape: tuple[int, ...]
    channels_last: bool
    gives_map: bool

    def __init__(self, backbone: nn.Module, image_size: int, facts: BackboneFacts) -> None:
        self._facts = facts
        self._size = image_size
        named = backbone.get_submodule("model").named_parameters()
        trained = (original_name(name) for name, each in named if each.requires_grad)
        self.gives_map = _gives_map(facts, trained)
        device = next(backbone.parameters()).device
        example = torch.randn(
            (1, 3, image_size, image_size), generator=torch.Generator().manual_seed(0)
        ).to(device)
        example = example.contiguous(memory_format=torch.channels_last)
        was_training = backbone.training
        backbone.eval()
        try:
            halves = cut_in_front(backbone.get_submodule("model"), example, facts.reads)
            self._prefix, self._suffix = halves.prefix, halves.suffix
            self._require_same(example, halves.output)
        finally:
            backbone.train(was_training)
        activations = halves.activations
        self.shape = tuple(activations.shape[1:])
        self.channels_last = (
            activations.ndim == 4
            and not activations.is_contiguous()
            and activations.is_contiguous(memory_format=torch.channels_last)
        )

    def prefix(self, images: Tensor) -> Tensor:
        """Returns boundary activations (B, *shape) of normalised images (B, 3, side, side)."""
        return run_prefix(self._prefix, images, self._facts.reads)

    def frozen_prefix(
        self, precision: Precision = "fp32", make: Callable[..., FrozenForward] = frozen_forward
    ) -> FrozenForward:
        """Makes a fast copy of the prefix, for weights that do not change.

        Args:
            precision: Precision of the computation; the output is float32.
            make: Makes it, called as `frozen_forward` is.
        """
        shape = (3, self._size, self._size)
        prefix = _Prefix(self._prefix, self._facts.reads)
        return make(prefix, shape, precision=precision)

    def suffix(self, activations: Tensor) -> Tensor:
        """Returns what the pooling reads, of activations at the boundary (B, *shape)."""
        features = features_of(self._suffix, activations, self._facts.reads)
        return read(self._suffix, features, self._facts, self._size, self._size)

    def maps(self, activations: Tensor) -> Tensor:
        """Returns the map (B, C, h, w), of activations at the boundary; see `gives_map`."""
        features = self._suffix.forward_features(activations)
        return to_map(features, self._facts, self._size, self._size)

    def _require_same(self, example: Tensor, expected: Any) -> None:
        with torch.no_grad():
            try:
                found = run(self._suffix, self.prefix(example), self._facts.reads)
            except Exception as error:  # models raise any error
                raise CannotCut("its blocks do not simply follow each other") from error
        if found.shape != expected.shape:
            raise CannotCut("its blocks do not simply follow each other")
        scale = expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
        deviation = float((found - expected).abs().max() / scale)
        if not deviation <= _TOLERANCE:
            raise CannotCut(f"its two parts deviate by {deviation:.1e} from the whole")


def _gives_map(facts: BackboneFacts, trained: Iterable[str]) -> bool:
    return facts.map_is_all and not set(trained).issubset(facts.head_names)


def gives_map(name: str, blocks: int | Literal["all"], reads: Reads = "map") -> bool:
    """Returns whether what a pooling reads follows from a map in the trained part of a backbone.

    Args:
        name: Name of a timm model.
        blocks: Number of last blocks that are trained, or ``all``.
        reads: What its pooling reads.

    Raises:
        BackboneError: If there is no such backbone, or nothing such to read.
    """
    facts = probe(name, reads)
    return _gives_map(facts, trained_names(facts.block_names, blocks))


class _Prefix(nn.Module):
    """Wraps the prefix in a module."""

    def __init__(self, model: nn.Module, reads: Reads) -> None:
        super().__init__()
        self.model = model
        self.reads = reads

    def forward(self, images: Tensor) -> Tensor:
        return run_prefix(self.model, images, self.reads)


@lru_cache(maxsize=64)
def boundary_shape(
    name: str, blocks: int, image_size: int, reads: Reads = "map"
) -> tuple[int, ...]:
    """Returns the shape of one image's activations before the last blocks, without weights.

    Args:
        name: Name of a timm model.
        blocks: Number of last blocks that are trained.
        image_size: Side of the images in pixels.
        reads: What its pooling reads.

    Raises:
        BackboneError: If there is no such backbone, or nothing such to read.
        CannotCut: If it cannot be cut there, as far as shapes and gradients show. With weights,
            `SplitBackbone` compares numbers.
    """
    facts, names = probe(name, reads), stream_names(name)
    if len(names) > 1:
        return (sum(math.prod(boundary_shape(each, blocks, image_size, reads)) for each in names),)
    whole, following = second_layer_of(name)
    failure: Exception | None = None
    for device in ("meta", "cpu"):  # a few models need real numbers while they are built
        try:
            with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
                warnings.simplefilter("ignore")
                with torch.device(device):
                    model: Any = timm.create_model(
                        whole, pretrained=False, num_classes=0, **dict(facts.options)
                    )
                    model = cut(model.eval(), reads)
                    if following:
                        model = TwoLayers(model, probe(whole), facts.second_stop)
                    example = torch.zeros(1, 3, image_size, image_size)
                    trained = set(trained_names(facts.block_names, blocks))
                    for key, parameter in model.named_parameters():
                        parameter.requires_grad_(key in trained)
                    halves = cut_in_front(model, example, reads)
                    require_clean_cut(model, halves, facts.unused, reads)
            return tuple(halves.activations.shape[1:])
        except CannotCut:
            raise
        except Exception as error:
            failure = error
    raise CannotCut(str(failure).strip()[:120]) from failure
