"""Classifiers behind several blocks of a network and of all of them together, which add up.

Source: Du et al., "Fine-Grained Visual Classification via Progressive Multi-Granularity Training of
Jigsaw Patches", ECCV 2020 (PMG): a test image is predicted by the sum of the scores of the
classifiers of all granularities and of that of their concatenation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gsfl_tune.models._reads import full_precision, no_autocast
from gsfl_tune.models._seen import SeenWhereAsked

# Part of the names of those tensors in which the scores of these classifiers are linear.
SCORES = "granularities.scores."


@dataclass(frozen=True)
class GranularitySettings:
    """Holds what a `Granularities` reads, and its sizes.

    Attributes:
        channels: Of each map, that in front of the pooling first.
        stops: Paths of the modules of the backbone that the other maps enter.
        width: Channels of the classifiers.
        class_count: C.
    """

    channels: tuple[int, ...]
    stops: tuple[str, ...]
    width: int
    class_count: int


class Granular(NamedTuple):
    """Holds what a network with several classifiers says of a batch.

    Attributes:
        features: (B, D) unit features, for the model's own head.
        scores: (K, B, C) of the classifiers behind the blocks, the last block's first.
        together: (B, C) of the classifier of all of them.
    """

    features: Tensor
    scores: Tensor
    together: Tensor

    def joined(self) -> Tensor:
        """Returns (B, D + C): unit features, and behind them what is added to the head's scores."""
        added = self.scores.sum(dim=0) + self.together
        return torch.cat([self.features, added.to(self.features.dtype)], dim=1)


class Granularities(nn.Module):
    """Classifies the maps behind K blocks, and what all of their classifiers look at.

    With v_k as what the layers of classifier k make of its map, a vector of `width` numbers,

        z_k = A_k v_k + a_k        z_c = A ELU(W LN(v_1, ..., v_K) + w) + a

    The published answer of a network is z_c + sum over k of z_k. All A and a start at zero: until
    they are learnt, nothing is added to the scores of the network's own head.

    Args:
        settings: Sizes.
        seed: Of its weights.
    """

    def __init__(self, settings: GranularitySettings, seed: int = 0) -> None:
        super().__init__()
        self.settings = settings
        width, count = settings.width, len(settings.channels)
        # A training's other random numbers stay as they are.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.describe = nn.ModuleList(
                nn.Sequential(*map_layers(channels, width)) for channels in settings.channels
            )
            self.join = nn.Sequential(
                nn.LayerNorm(count * width), nn.Linear(count * width, width), nn.ELU()
            )
            # The last one is that of all together.
            self.scores = nn.ModuleList(
                nn.Linear(width, settings.class_count) for _ in range(count + 1)
            )
        for layer in self.scores:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        self._seen = [SeenWhereAsked() for _ in settings.stops]

    def attach(self, model: nn.Module) -> None:
        """Lets modules of a backbone's model say what enters them; a second time does nothing."""
        for stop, seen in zip(self.settings.stops, self._seen, strict=True):
            module = model.get_submodule(stop)
            if not any(_is(hook, seen) for hook in module._forward_pre_hooks.values()):
                module.register_forward_pre_hook(seen.enter)

    @contextmanager
    def noting(self) -> Iterator[Callable[[], list[Tensor]]]:
        """Notes what enters the modules in a pass of this thread within the block.

        Yields:
            A function that returns it, in the layout of the model, to be called once behind the
            pass. It raises `RuntimeError` if a module was not called.
        """
        for seen in self._seen:
            seen.ask()
        try:
            yield lambda: [_entered(seen) for seen in self._seen]
        finally:
            for seen in self._seen:
                seen.end()

    def score(self, level: int, maps: Tensor) -> Tensor:
        """Returns scores (B, C) of classifier `level`, for its maps (B, C_k, h, w)."""
        with no_autocast(maps.device.type):
            found: Tensor = self.scores[level](self._described(level, maps))
            return found

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns scores (K, B, C) of the classifiers and (B, C) of that of all together.

        Args:
            maps: K of them, (B, C_k, h_k, w_k), that in front of the pooling first.
        """
        with no_autocast(maps[0].device.type):
            seen = [self._described(level, each) for level, each in enumerate(maps)]
            single = [self.scores[level](each) for level, each in enumerate(seen)]
            together = self.scores[-1](self.join(torch.cat(seen, dim=1)))
            return full_precision(torch.stack(single)), full_precision(together)

    def _described(self, level: int, maps: Tensor) -> Tensor:
        values = full_precision(maps).to(next(self.parameters()).dtype)
        described: Tensor = self.describe[level](values)
        return described


def map_layers(channels: int, width: int) -> list[nn.Module]:
    """Makes the layers of a classifier of a map, in front of its linear one.

    Norms are of each image (group norm), so that batches may be trained in pieces and by several
    processes.

    Args:
        channels: Of the map.
        width: Channels of both convolutions, and size of the result.
    """
    return [
        nn.Conv2d(channels, width, 1, bias=False),
        nn.GroupNorm(1, width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.GroupNorm(1, width),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
    ]


def map_layers_work(channels: int, positions: float, width: int) -> float:
    """Returns the operations of the convolutions of `map_layers` for an image."""
    return 2.0 * width * positions * (channels + 9 * width)


def granularities_size(settings: GranularitySettings) -> int:
    """Counts the parameters of a `Granularities`."""
    width, count = settings.width, len(settings.channels)
    maps = sum(width * (channels + 9 * width + 4) for channels in settings.channels)
    join = 2 * count * width + width * (count * width + 1)
    return maps + join + (count + 1) * settings.class_count * (width + 1)


def granularities_work(positions: Sequence[float], settings: GranularitySettings) -> float:
    """Returns the operations of a `Granularities` for an image.

    Args:
        positions: Of each map.
        settings: Sizes.
    """
    width, count = settings.width, len(settings.channels)
    pairs = zip(settings.channels, positions, strict=True)
    maps = sum(map_layers_work(channels, places, width) for channels, places in pairs)
    linear = count * width * width + (count + 1) * width * settings.class_count
    return maps + 2.0 * linear


def _is(hook: Any, seen: SeenWhereAsked) -> bool:
    return getattr(hook, "__self__", None) is seen


def _entered(seen: SeenWhereAsked) -> Tensor:
    found = seen.take()
    if found is None:
        raise RuntimeError("a module behind a block was not called")
    return found
