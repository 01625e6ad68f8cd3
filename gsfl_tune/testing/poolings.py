"""The contract of a pooling."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gsfl_tune.experiment.errors import first_line
from gsfl_tune.models import Pooling, create_pooling
from gsfl_tune.testing._expect import Expect

_expect = Expect("the pooling")
# Divided by the blocks whose tokens a pooling may read side by side.
_CHANNELS, _IMAGES = 8, 5


def check_pooling(create: Callable[[int], Pooling]) -> None:
    """Checks a pooling, on the CPU.

    - It says how many channels it takes and how large its vectors are, has no parameters, and can
      be made on the meta device.
    - Its vectors have that size, at least float32, and are finite, for a map of zeros too; so is
      their gradient.
    - It has no parameters, or equals the pooling that ``starts_as`` names.
    - An image has the same vector alone and in a batch, and the order of a batch does not matter.
    - It gives the same for the same maps, also after it was restored from its ``state_dict``.
    - It can be exported for batches of any size, and the exported program gives the same.

    Args:
        create: Makes the pooling from a number of channels.

    Raises:
        AssertionError: With what is wrong.
    """
    pooling = create(_CHANNELS).eval()
    learns = bool(list(pooling.parameters()))
    if pooling.starts_as is None:
        _expect(not learns, "has parameters, which a frozen backbone cannot train")
    _expect(pooling.channels == _CHANNELS, f"says that it takes {pooling.channels} channels")
    with torch.device("meta"):
        _expect(create(_CHANNELS).dim == pooling.dim, "has another size on the meta device")
    maps = _inputs(pooling)
    vectors = pooling(maps)
    shape = (_IMAGES, pooling.dim)
    _expect(vectors.shape == shape, f"gives {tuple(vectors.shape)}, it says {shape}")
    _expect(vectors.dtype in (torch.float32, torch.float64), f"gives {vectors.dtype}")
    if pooling.starts_as is not None:
        started = create_pooling(pooling.starts_as, _CHANNELS)(maps)
        same = started.shape == vectors.shape and torch.allclose(started, vectors, atol=1e-5)
        _expect(same, f"does not start as {pooling.starts_as}")
    _check_finite(pooling, maps)
    _check_images(pooling, maps, vectors)
    restored = create(_CHANNELS).eval()
    restored.load_state_dict(pooling.state_dict())
    _expect(torch.equal(restored(maps), vectors), "is another one after it was restored")
    _check_exported(pooling, maps)


def _inputs(pooling: Pooling) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    side = 3
    while side * side < pooling.fewest_positions:
        side += 1
    shapes = {"map": (_IMAGES, _CHANNELS, side, side + 1), "head": (_IMAGES, _CHANNELS)}
    tokens = (_IMAGES, 1 + side * side, _CHANNELS)
    return torch.randn(shapes.get(pooling.reads, tokens), generator=generator)


def _check_finite(pooling: Pooling, maps: Tensor) -> None:
    for name, given in (("maps", maps), ("a map of zeros", torch.zeros_like(maps))):
        leaf = given.clone().requires_grad_()
        vectors = pooling(leaf)
        _expect(bool(torch.isfinite(vectors).all()), f"is not finite for {name}")
        # Squares, as those of a normalised vector would be the same for any vector.
        (slope,) = torch.autograd.grad(vectors.square().sum() + vectors.sum(), leaf)
        _expect(bool(torch.isfinite(slope).all()), f"has a gradient that is not finite for {name}")


def _check_images(pooling: Pooling, maps: Tensor, vectors: Tensor) -> None:
    order = torch.arange(_IMAGES - 1, -1, -1)
    turned = pooling(maps[order])[order]
    _expect(torch.allclose(turned, vectors, atol=1e-5), "depends on the order of a batch")
    alone = torch.cat([pooling(maps[place : place + 1]) for place in range(_IMAGES)])
    _expect(torch.allclose(alone, vectors, atol=1e-5), "is another one for an image alone")


class _Wrapped(nn.Module):
    def __init__(self, pooling: Pooling) -> None:
        super().__init__()
        self.pooling = pooling

    def forward(self, maps: Tensor) -> Tensor:
        vectors: Tensor = self.pooling(maps)
        return vectors


def _check_exported(pooling: Pooling, maps: Tensor) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    try:
        program = torch.export.export(
            _Wrapped(pooling).eval(), (maps[:2],), dynamic_shapes={"maps": {0: batch}}
        )
    except Exception as error:
        what = first_line(error)
        raise AssertionError(
            f"the pooling cannot be exported for batches of any size ({what}); write "
            "maps.shape[0], not len(maps)"
        ) from error
    exported = program.module()(maps)
    same = torch.allclose(exported, pooling(maps), atol=1e-5)
    _expect(same, "gives other vectors when it is exported")
