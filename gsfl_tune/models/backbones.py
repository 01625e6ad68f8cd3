"""Backbones: timm models that map images to feature maps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from gsfl_tune.models._added import register
from gsfl_tune.models._blocks import frozen_modules, trained_names
from gsfl_tune.models._facts import (
    BackboneError,
    BackboneFacts,
    from_map,
    read,
    to_map,
)
from gsfl_tune.models._layers import layer_map, stopped_at
from gsfl_tune.models._reads import Reads, features_of
from gsfl_tune.models.adapters import (
    add_adapters,
    called,
    magnitudes,
    merge_adapters,
    original_name,
)
from gsfl_tune.models.drop_path import drop_paths
from gsfl_tune.models.mix_style import (
    entered_by_map,
    mix_style_problem,
    mixed_blocks,
    put_mix_style,
    remove_mix_style,
)
from gsfl_tune.models.restitution import (
    Restitution,
    restituted_blocks,
    restitution_channels,
    restitution_problem,
)
from gsfl_tune.models.split import SplitBackbone
from gsfl_tune.models.streams import undecayed_names
from gsfl_tune.models.trained_part import TrainedPart, nothing_to_train, part_names
from gsfl_tune.models.two_layers import TwoLayers
from gsfl_tune.models.weights import (
    architecture,
)

# Part of every digest: increase it when a backbone's output changes for the same weights.
CODE_VERSION = 1


class Preprocessing(NamedTuple):
    """Holds the normalisation of pixels in 0..1, per channel: (pixel - mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Backbone(nn.Module):
    """Wraps a timm model without its classifier; it starts frozen.

    Attributes:
        name: The timm name; of two streams both, of two layers with the place of the second.
        reads: What it gives to its pooling: the map, tokens, or the vector of the model's own head.
        channels: Number of channels C of that.
        second_channels: How many of them, the last ones, are of a second stream or layer.
        preprocessing: Normalisation of inputs.
        digest: Content digest (hex) of name, code version, preprocessing, initial weights and
            ``reads``.
        block_count: Number of blocks that `train_last` counts; the stem belongs to the first block,
            layers after the blocks to the last.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        facts: BackboneFacts,
        preprocessing: Preprocessing,
        digest: str | None = None,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.name = name
        self.reads = facts.reads
        self.channels = facts.channels
        self.second_channels = facts.second_channels
        self.preprocessing = preprocessing
        self.digest = digest or _digest(model, name, preprocessing, facts.reads)
        self._facts = facts
        # Of the file of its weights, for the pooling `screened`.
        self.screening: tuple[Tensor, Tensor] | None = None
        self.block_count = facts.blocks
        self.style: nn.Module | None = None
        self.restitution: Restitution | None = None
        # Of the module whose input it changes.
        self.restituted = ""
        self._frozen: list[nn.Module] = []
        # Names of all parameters of the blocks that are trained.
        self._whole: frozenset[str] = frozenset()
        # Names of what is trained of them.
        self._part: frozenset[str] = frozenset()
        self.train_last(0)
        self.eval()

    def take_screening(self, weight: Tensor, bias: Tensor) -> None:
        """Takes the screening head of the file of its weights: (K, C) and (K,)."""
        self.screening = (weight, bias)
        content = hashlib.blake2b(self.digest.encode(), digest_size=16)
        for each in self.screening:
            content.update(each.contiguous().numpy().tobytes())
        self.digest = content.hexdigest()

    def forward(self, images: Tensor) -> Tensor:
        """Returns what the pooling reads of a batch.

        Args:
            images: (B, 3, height, width), normalised.

        Returns:
            The feature map (B, C, h, w); tokens (B, 1 + h w, C), class token first; or the vectors
            (B, C) of the model's own head.
        """
        return self.read(self.features(images), images.shape[2], images.shape[3])

    def features(self, images: Tensor) -> Tensor:
        """Returns what `read` and `to_map` take, in timm's own layout, of images."""
        features: Tensor = features_of(self.model, images, self.reads)
        return features

    def read(self, features: Tensor, height: int, width: int) -> Tensor:
        """Returns what the pooling reads of `features` of images of a size in pixels."""
        return read(self.model, features, self._facts, height, width)

    def to_map(self, features: Tensor, height: int, width: int) -> Tensor:
        """Returns the map (B, C, h, w) in `features` of images of a size in pixels."""
        return to_map(features, self._facts, height, width)

    @property
    def gives_map(self) -> bool:
        """Returns whether what the pooling reads follows from `maps` alone."""
        return self._facts.map_is_all

    def maps(self, images: Tensor) -> Tensor:
        """Returns the map (B, C, h, w) of images, also where the model's own head follows it."""
        return self.to_map(self.features(images), images.shape[2], images.shape[3])

    def read_maps(self, maps: Tensor) -> Tensor:
        """Returns what the pooling reads, of maps (B, C, h, w); needs `gives_map`."""
        if self.reads == "map":
            return maps
        height, width = maps.shape[2:]
        return self.read(from_map(maps, self._facts), height, width)

    def layer(self, stop: str, run: Callable[[], object]) -> Tensor:
        """Runs the backbone, or a part of it, up to the map (B, C, h, w) behind a block.

        Args:
            stop: Of the block, see `gsfl_tune.models.layers.Layer`.
            run: Runs it on images or activations; it is left when the block has ended.
        """
        return self.as_map(stopped_at(self.model.get_submodule(stop), run))

    def as_map(self, activations: Tensor) -> Tensor:
        """Returns activations behind a block, in the layout of the model, as (B, C, h, w)."""
        # Of two layers the facts are those of the joined map.
        facts = self.model.facts if isinstance(self.model, TwoLayers) else self._facts
        return layer_map(activations, facts)

    def train_last(self, n: int | Literal["all"], part: TrainedPart = "all") -> list[nn.Parameter]:
        """Makes the last blocks trainable, or a part of them, and freezes everything else.

        Frozen blocks stay in evaluation mode whatever `train` says: their norms keep their
        statistics. Parameters that the map does not depend on are never trained.

        Args:
            n: Number of blocks, 0 for none; a number above the total means all.
            part: ``all``, ``norms`` or ``biases``. For adapters see `adapt`.

        Returns:
            The trainable parameters, in the order of the model.

        Raises:
            ValueError: If n is negative.
            BackboneError: If the blocks have none of a part.
        """
        if n != "all" and n < 0:
            raise ValueError(f"cannot train the last {n} blocks")
        names = trained_names(self._facts.block_names, n)
        self._whole = frozenset(names)
        found = part_names(self.model, names, part)
        if part != "all" and not found:
            raise BackboneError(nothing_to_train(self.name, part))
        return self._train_only(found)

    def adapt(
        self, part: TrainedPart, *, rank: int, scale: float, seed: int, image_size: int
    ) -> list[nn.Parameter]:
        """Puts adapters into the trained blocks and freezes everything else.

        Linear layers and 1 x 1 convolutions get them; see `gsfl_tune.models.adapters`.

        Args:
            part: ``lora`` or ``dora``.
            rank: Of every adapter.
            scale: Factor of what they add.
            seed: Of their weights.
            image_size: Side of the images in pixels.

        Returns:
            The trainable parameters, in the order of the model.

        Raises:
            BackboneError: If no layer can have one.
        """
        weights = part_names(self.model, self._whole, part)
        paths = sorted(name.removesuffix(".weight") for name in weights)
        device = next(self.model.parameters()).device
        images = torch.zeros(1, 3, image_size, image_size, device=device)
        paths = called(self.eval().model, paths, images)
        if not paths:
            raise BackboneError(nothing_to_train(self.name, part))
        add_adapters(
            self.model, paths, magnitudes=part == "dora", rank=rank, scale=scale, seed=seed
        )
        named = self.model.named_parameters()
        return self._train_only(name for name, parameter in named if parameter.requires_grad)

    def merge(self) -> None:
        """Adds adapters to the weights and removes them: a plain backbone remains."""
        remove_mix_style(self.model)
        self.style = None
        merge_adapters(self.model)
        self._frozen = frozen_modules(self.model)

    def trained_blocks(self) -> list[list[nn.Parameter]]:
        """Returns the trainable parameters of every block, the last block first."""
        found: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                found.setdefault(original_name(name), []).append(parameter)
        blocks = [
            [parameter for name in names for parameter in found.get(name, ())]
            for names in reversed(self._facts.block_names)
        ]
        if self.restitution is not None:
            # What is in front of the trained blocks has the rate of the first of them.
            first = max((place for place, each in enumerate(blocks) if each), default=0)
            blocks[first] += self.restitution.parameters()
        return blocks

    def unfreeze(self, count: int | None) -> None:
        """Freezes trained blocks for a while, all but the last ones.

        They are as blocks that are never trained: without gradients, in evaluation mode, so that
        their norms keep their statistics. The place of a cut does not change.

        Args:
            count: Number of last blocks that stay trained; None trains all that `train_last` chose.
        """
        blocks = self._facts.block_names[0 if count is None else -count :]
        names = {name for block in blocks for name in block}
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self._part and original_name(name) in names)
        self._frozen = frozen_modules(self.model)
        self.train(self.training)

    def undecayed(self) -> list[nn.Parameter]:
        """Lists tensors of several dimensions that have no weight decay.

        Those that the model's authors except (position embeddings and biases, tokens): what timm's
        ``no_weight_decay`` names. Also `adapted_lengths`.
        """
        names = undecayed_names(self.model)
        named = self.model.named_parameters()
        return [*self.adapted_lengths(), *(each for name, each in named if name in names)]

    def adapted_lengths(self) -> list[nn.Parameter]:
        """Lists the lengths of rows that DoRA trains: they are no weights."""
        return magnitudes(self.model)

    def drop_paths(self, rate: float) -> None:
        """Puts stochastic depth into the trained blocks; see `gsfl_tune.models.drop_path`.

        Raises:
            BackboneError: If timm does not take ``drop_path_rate`` for the model.
        """
        drop_paths(self.model, self.name, rate, self._whole)

    def mix_styles(self, share: float, image_size: int) -> None:
        """Mixes styles in front of the trained blocks, in training; `gsfl_tune.models.mix_style`.

        Args:
            share: Probability that a batch is mixed.
            image_size: Side of the images in pixels.
            seed: Of its weights.

        Raises:
            BackboneError: If what enters these blocks is not a map.
        """
        blocks = self._facts.block_names
        trained = sum(self._whole.issuperset(names) for names in blocks)
        if problem := mix_style_problem(self.name, trained, image_size, self.reads):
            raise BackboneError(problem)
        names = trained_names(blocks, mixed_blocks(len(blocks), trained))
        mode = self.training
        self.eval()
        self.style = put_mix_style(self.model, names, share, image_size, self.reads)
        self.train(mode)

    def restitute(self, blocks: int | Literal["all"], image_size: int, *, seed: int = 0) -> None:
        """Normalises and restitutes styles in front of the trained blocks, also in use.

        See `gsfl_tune.models.restitution`.

        Args:
            blocks: Number of last blocks that will be trained, or ``all``.
            image_size: Side of the images in pixels.
            seed: Of its weights.

        Raises:
            BackboneError: If what enters these blocks is not a map.
        """
        if problem := restitution_problem(self.name, blocks, image_size, self.reads):
            raise BackboneError(problem)
        count = restituted_blocks(self.name, blocks, self.reads)
        names = trained_names(self._facts.block_names, count)
        _, path = entered_by_map(self.model, names, image_size, self.reads)
        channels = restitution_channels(self.name, blocks, image_size, self.reads)
        self.put_restitution(path, channels, seed)

    def put_restitution(self, path: str, channels: int, seed: int = 0) -> None:
        """Puts the module of `restitute` in front of the module at a path.

        Args:
            path: In the timm model.
            channels: Of the map that enters it.
            seed: Of its weights.
        """
        device = next(self.model.parameters()).device
        self.restitution = Restitution(channels, seed).to(device)
        self.restituted = path
        self.model.get_submodule(path).register_forward_pre_hook(self.restitution.enter)
        if isinstance(self.model, TwoLayers):
            self.model.see_last()
        self.restitution.train(self.training)

    def split(self, image_size: int) -> SplitBackbone:
        """Cuts the backbone before its first block that is trained, for images of one size.

        Raises:
            CannotCut: If it cannot be cut there, or nothing is frozen.
        """
        trained = {name: p.requires_grad for name, p in self.model.named_parameters()}
        try:
            # The cut is in front of whole blocks, whatever part of them is trained.
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(original_name(name) in self._whole)
            return SplitBackbone(self, image_size, self._facts)
        finally:
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(trained[name])

    def _train_only(self, names: Iterable[str]) -> list[nn.Parameter]:
        self._part = frozenset(names)
        self.unfreeze(None)
        return [p for p in self.model.parameters() if p.requires_grad]

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of the trainable blocks; frozen ones stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        return self


def _digest(model: nn.Module, name: str, preprocessing: Preprocessing, reads: Reads) -> str:
    """Returns the hex digest of what decides the output, without the tag, which names weights."""
    digest = hashlib.blake2b(digest_size=16)
    # For a package's backbone the version counts too, as its code may change.
    added = register(architecture(name))
    package = () if added is None else (added.package,)
    further = package if reads == "map" else (*package, reads)
    digest.update(repr((CODE_VERSION, architecture(name), *preprocessing, *further)).encode())
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
        if not tensor.is_meta:
            flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
            digest.update(flat.cpu().numpy().data)
    return digest.hexdigest()
