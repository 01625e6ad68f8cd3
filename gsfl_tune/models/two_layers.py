"""Two layers of one backbone, whose maps are joined on one grid.

The map behind an earlier block has finer positions, and channels that stand for smaller and simpler
things than those of the last one. The second layer is the map behind the block that N others
follow: the input of the first module of the next one. It is averaged to the grid of the last map,
which keeps the mean of each channel, and stands behind it in the channels of the joined map.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gsfl_tune.models._facts import BackboneFacts, to_map
from gsfl_tune.models._layers import layer_map
from gsfl_tune.models._seen import Seen
from gsfl_tune.models.streams import WHOLE, Joined, averaged, on_one_grid

Size = tuple[int, int]
"""Height and width."""


class TwoLayers(Joined):
    """Runs a timm model and joins its map with that behind one of its blocks.

    Args:
        whole: The model.
        facts: Of the model.
        stop: Path of the module in it that the map of the second layer enters.
    """

    parts = (WHOLE,)

    def __init__(self, whole: nn.Module, facts: BackboneFacts, stop: str) -> None:
        super().__init__()
        self.whole: Any = whole
        self.facts = facts
        self.stop = stop
        self.seen = Seen()
        self.see_last()

    def see_last(self) -> None:
        """Puts the hook for the second layer behind those that change its map until now."""
        module = self.whole.get_submodule(self.stop)
        for key, hook in list(module._forward_pre_hooks.items()):
            if getattr(hook, "__self__", None) is self.seen:
                del module._forward_pre_hooks[key]
        module.register_forward_pre_hook(self.seen.enter)

    def forward_features(self, images: Tensor) -> Tensor:
        """Returns the joined map (B, C + C', h, w).

        Args:
            images: (B, 3, height, width), normalised; or activations in front of the second layer,
                of square images.
        """
        size = (images.shape[2], images.shape[3]) if images.ndim == 4 else (1, 1)
        try:
            last = self.whole.forward_features(images)
        finally:
            # Also of a pass that is left before it ends.
            second = self.seen.take()
        return self.join(last, second, size)

    def join(self, last: Tensor, second: Tensor | None, size: Size) -> Tensor:
        """Returns the joined map of what both layers gave.

        Args:
            last: Output of the model, in timm's layout.
            second: What entered the module of the second layer.
            size: Height and width of the images in pixels.

        Raises:
            RuntimeError: If that module was not called.
        """
        return on_one_grid([to_map(last, self.facts, *size), self.second_map(second, size)])

    def second_map(
        self, activations: Tensor | None, size: Size, grid: Size | None = None
    ) -> Tensor:
        """Returns the map (B, C', h, w) of the second layer, of what entered its module.

        Args:
            activations: What entered it.
            size: Of the images in pixels.
            grid: Of the joined map, to which it is averaged if it is given.

        Raises:
            RuntimeError: If the module was not called.
        """
        if activations is None:
            raise RuntimeError(f"{self.stop} was not called: there is no second layer")
        found = layer_map(activations, self.facts, *size)
        return found if grid is None else averaged(found, *grid)
