"""Cached features for the head stage, in batches on its device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import psutil
import torch
from torch import Tensor


class FeatureTable:
    """Holds features of the same images in one or several views.

    A GPU gets its own copy, in the precision of the cache. If the copy would take more than an
    eighth of the free GPU memory, every batch is copied instead: trials and other processes need
    the memory too.

    Args:
        tensors: (N, D) float32 or float16 on the CPU, one for each view.
        device: Device of the batches.
    """

    def __init__(self, tensors: Sequence[Tensor], device: torch.device) -> None:
        self.device = device
        self._tensors = list(tensors)
        self._copy: Tensor | None = None
        if device.type != "cpu" and _fits(self._tensors, device):
            shape = (len(self._tensors), *self._tensors[0].shape)
            self._copy = torch.empty(shape, dtype=self._tensors[0].dtype, device=device)
            for view, tensor in enumerate(self._tensors):
                self._copy[view].copy_(tensor)

    @property
    def device_bytes(self) -> int:
        """Returns the bytes of GPU memory that the copy takes."""
        return 0 if self._copy is None else self._copy.numel() * self._copy.element_size()

    @property
    def views(self) -> int:
        """Returns the number of views of every image."""
        return len(self._tensors)

    def batches(
        self, order: Tensor, size: int, shown: Tensor | None = None, *, sort: bool = True
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Yields batches of features.

        Args:
            order: (M,) positions, on the CPU.
            size: Images per batch; the last batch may have fewer.
            shown: (V, M) views of each position. A batch then has the same images, in the order of
                their first views. Default: the first view of all.
            sort: False keeps the given order, in which reading several views takes longer.

        Yields:
            Features, V times (B, D) float32, and their positions (B,), all on the device.
        """
        if shown is None:
            shown = torch.zeros((1, len(order)), dtype=torch.int64)
        if sort and len(self._tensors) > 1:
            batch = torch.arange(len(order)) // size
            by_view = (batch * len(self._tensors) + shown[0]).argsort(stable=True)
            order, shown = order[by_view], shown[:, by_view]
        # One transfer per epoch; one in every step would wait for the device.
        positions = order.to(self.device).split(size)
        if self._copy is not None:
            on_device = shown.to(self.device).split(size, dim=1)
            for views, batch in zip(on_device, positions, strict=True):
                yield tuple(self._copy[view, batch].float() for view in views), batch
            return
        for place, batch in enumerate(positions):
            part = slice(place * size, (place + 1) * size)
            rows = (self._gather(order[part], view[part]) for view in shown)
            yield tuple(each.to(self.device).float() for each in rows), batch

    def _gather(self, positions: Tensor, shown: Tensor) -> Tensor:
        """Returns rows of the tensors, (B, D); fastest if positions are sorted by their views."""
        if len(self._tensors) == 1:
            return self._tensors[0][positions]
        if bool((shown.diff() < 0).any()):
            by_view = shown.argsort(stable=True)
            return self._gather(positions[by_view], shown[by_view])[by_view.argsort()]
        counts = torch.bincount(shown, minlength=len(self._tensors)).tolist()
        parts = zip(self._tensors, positions.split(counts), strict=True)
        return torch.cat([tensor[part] for tensor, part in parts if len(part)])


def _fits(tensors: Sequence[Tensor], device: torch.device) -> bool:
    wanted = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:  # Apple's GPUs use the memory of the machine
        free = psutil.virtual_memory().available
    return 8 * wanted <= free
