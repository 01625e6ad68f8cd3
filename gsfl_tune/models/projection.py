"""A fixed PCA projection of the channels before bilinear pooling."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Projection(nn.Module):
    """Projects a feature map by W (x - mean), as a 1x1 convolution with untrained buffers.

    Centring turns the second moments in bilinear pooling into covariances: it removes the channels'
    common offset, which carries no class information.

    Args:
        weight: (channels out, channels in), rows are principal directions.
        mean: (channels in,).
    """

    weight: Tensor
    mean: Tensor

    def __init__(self, weight: Tensor, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("mean", mean)

    @property
    def channels(self) -> int:
        """Returns the number of output channels."""
        return self.weight.shape[0]

    def forward(self, maps: Tensor) -> Tensor:
        """Projects (B, C, h, w) to (B, channels, h, w)."""
        weight = self.weight.to(maps.dtype)
        bias = -(self.weight @ self.mean).to(maps.dtype)
        return F.conv2d(maps, weight[:, :, None, None], bias)


@torch.no_grad()
def fit_projection(
    maps: Iterable[Tensor], channels: int | tuple[int, int], *, second: int = 0
) -> Projection:
    """Fits the PCA of local descriptors (every position of every map is one).

    Covariances are summed in float64 batch by batch, so that memory does not grow with the data.
    The sign of a direction makes its largest entry positive.

    Two streams are projected each by itself: the weight has a block for each, and zeros. A stream
    of which all channels are kept stays as it is.

    Args:
        maps: Batches (B, C, h, w) of un-augmented training images, on any device.
        channels: Number of directions to keep, of two streams for each.
        second: How many of the channels, the last ones, are of a second stream.

    Returns:
        The projection, float32, on the CPU.

    Raises:
        ValueError: If there are no maps or fewer input channels than requested.
    """
    count = 0
    shift: Tensor | None = None
    total = outer = torch.zeros(0)
    for batch in maps:
        rows = batch.movedim(1, -1).reshape(-1, batch.shape[1])
        if rows.device.type == "mps":
            rows = rows.cpu()  # Apple's GPUs have no float64
        rows = rows.double()
        if shift is None:
            shift = rows.mean(0)  # near the mean, so that sums of squares lose no digits
            total = torch.zeros_like(shift)
            outer = torch.zeros(len(shift), len(shift), dtype=rows.dtype, device=rows.device)
        rows = rows - shift
        count += len(rows)
        total += rows.sum(0)
        outer += rows.T @ rows
    if shift is None:
        raise ValueError("a projection cannot be fitted without feature maps")
    kept = channels if isinstance(channels, tuple) else (channels,)
    sizes = (len(shift) - second, second) if second else (len(shift),)
    for each, size in zip(kept, sizes, strict=True):
        if each > size:
            raise ValueError(f"cannot keep {each} of {size} channels")
    offset = total / count
    covariance = (outer / count - torch.outer(offset, offset)).cpu()
    mean = (shift + offset).cpu()
    if not second:
        return Projection(_directions(covariance, kept[0]).float().contiguous(), mean.float())
    weights = []
    for each, own in zip(kept, (slice(0, sizes[0]), slice(sizes[0], None)), strict=True):
        block = covariance[own, own]
        if each == len(block):
            weights.append(torch.eye(each, dtype=block.dtype))
            mean[own] = 0
        else:
            weights.append(_directions(block, each))
    return Projection(torch.block_diag(*weights).float().contiguous(), mean.float())


def _directions(covariance: Tensor, channels: int) -> Tensor:
    """Returns the principal directions (channels, C) of a covariance (C, C)."""
    _, vectors = torch.linalg.eigh(covariance)
    weight = vectors.flip(1)[:, :channels].T
    largest = weight.gather(1, weight.abs().argmax(1, keepdim=True))
    return weight * torch.where(largest < 0, -1.0, 1.0)
