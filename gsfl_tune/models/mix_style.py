"""MixStyle: maps of an image get means and deviations mixed with those of another image.

Source: Zhou et al., "Domain Generalization with MixStyle", ICLR 2021 (arXiv 2104.02008). With the
mean mu(x) and the deviation sigma(x) of each channel over the positions of a map, x becomes
``sigma' (x - mu(x)) / sigma(x) + mu'``, where mu' and sigma' are lambda times those of the image
plus 1 - lambda times those of another one of the batch, and lambda is drawn from Beta(0.1, 0.1) for
each image. The statistics have no gradient. What a map shows stays; colours and light, which its
statistics hold, change. Labels stay too.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from gsfl_tune.models._boundary import CannotCut, boundary_of
from gsfl_tune.models._entry import EntryModule
from gsfl_tune.models._facts import BackboneError
from gsfl_tune.models._probe import probe
from gsfl_tune.models._reads import Reads
from gsfl_tune.models.split import boundary_shape
from gsfl_tune.models.streams import second_layer_of, stream_names

_ALPHA = 0.1
_LEAST = 1e-6


class MixStyle(EntryModule):
    """Mixes the styles of maps in training; in eval mode it does nothing.

    Args:
        share: Probability that a batch is mixed.

    Attributes:
        random: Source of its random numbers, see `seed_mix_styles`.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.random = np.random.default_rng(0)

    def forward(self, maps: Tensor) -> Tensor:
        """Mixes maps (B, C, h, w)."""
        drawn = self._draw(len(maps)) if self.training else None
        if drawn is None:
            return maps
        order, kept = (torch.from_numpy(each).to(maps.device) for each in drawn)
        values = maps.float() if maps.element_size() < 4 else maps
        with torch.no_grad():
            variance, mean = torch.var_mean(values, dim=(2, 3), keepdim=True, correction=0)
            spread = (variance + _LEAST).sqrt()
            share = kept.to(values.dtype)[:, None, None, None]
            other_mean = share * mean + (1 - share) * mean[order]
            factor = (share * spread + (1 - share) * spread[order]) / spread
        return ((values - mean) * factor + other_mean).to(maps.dtype)

    @torch.compiler.disable
    def _draw(self, count: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Draws partners and shares (count,); None if a batch stays as it is."""
        chance = self.random.random()
        order, kept = self.random.permutation(count), self.random.beta(_ALPHA, _ALPHA, count)
        return (order, kept) if chance < self.share else None


def put_mix_style(
    model: nn.Module, names: list[str], share: float, size: int, reads: Reads
) -> MixStyle:
    """Mixes styles in front of some last blocks of a model in eval mode.

    Parameters, buffers and their names do not change.

    Args:
        model: A timm model; changed in place.
        names: Parameters of these blocks.
        share: Probability that a batch is mixed.
        size: Side of the images in pixels.
        reads: What a pooling reads of it.

    Returns:
        What mixes; it has to follow the mode of the network.

    Raises:
        BackboneError: If no single map enters these blocks.
    """
    module, _ = entered_by_map(model, names, size, reads)
    style = MixStyle(share)
    # In front of what else changes the map.
    module.register_forward_pre_hook(style.enter, prepend=True)
    return style


def entered_by_map(
    model: nn.Module, names: list[str], size: int, reads: Reads
) -> tuple[nn.Module, str]:
    """Finds the first module of some last blocks of a model in eval mode, and its path.

    Arguments and errors are those of `put_mix_style`.
    """
    known = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    device = next(model.parameters()).device
    images = torch.zeros(1, 3, size, size, device=device)
    try:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in names)
        path, entering = boundary_of(model, images, reads)
    except CannotCut as error:
        raise BackboneError(str(error)) from error
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(known[name])
    if entering.ndim != 4:
        raise BackboneError(_NO_MAP)
    return model.get_submodule(path), path


def remove_mix_style(model: nn.Module) -> None:
    """Removes what `put_mix_style` put into a model, or into a copy of it."""
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(getattr(hook, "__self__", None), MixStyle):
                del module._forward_pre_hooks[key]


def seed_mix_styles(network: nn.Module, seed: int) -> None:
    """Begins the random numbers of a network's styles anew."""
    for module in network.modules():
        if isinstance(module, MixStyle):
            module.random = np.random.default_rng(seed)


def mixed_blocks(blocks: int, trained: int) -> int:
    """Returns the number of last blocks in front of which styles are mixed.

    Args:
        blocks: Blocks of the backbone.
        trained: Blocks that are trained; if all, the first one, with the stem, is left out: what
            enters it is images.
    """
    return min(trained, blocks - 1)


def mix_style_problem(name: str, trained: int, image_size: int, reads: Reads = "map") -> str | None:
    """Says why styles cannot be mixed in a model, or None.

    Args:
        name: Name of a timm model.
        trained: Number of last blocks that are trained.
        image_size: Side of the images in pixels.
        reads: What its pooling reads.

    Raises:
        BackboneError: If there is no such backbone.
    """
    facts = probe(name, reads)
    if len(stream_names(name)) > 1:
        return "it is made for one backbone, and there are two"
    whole, following = second_layer_of(name)
    if following:
        return mix_style_problem(whole, trained, image_size, reads)
    count = mixed_blocks(facts.blocks, trained)
    if not count:
        return f"{name} is a single block"
    if facts.layout != "NCHW":
        return f"{name}: {_NO_MAP}"
    try:
        shape = boundary_shape(name, count, image_size, reads)
    except CannotCut as error:
        return f"{name}: {error}"
    return None if len(shape) == 3 else f"{name}: {_NO_MAP}"


_NO_MAP = "what enters its blocks is not a map of channels, as in convolutional networks"
