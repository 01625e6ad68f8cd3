"""The contract of a transform of training images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gsfl_tune.data.augment import Augment
from gsfl_tune.data.transforms import Streams, Transform
from gsfl_tune.experiment.data_config import AugmentConfig
from gsfl_tune.testing._expect import Expect

_expect = Expect("the transform")
_COUNT, _SIZE = 12, 24
_MEAN, _STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def check_transform(create: Callable[[], Transform]) -> None:
    """Checks a transform, on the CPU.

    - It draws as many numbers an image as it says, the same ones from the same generator.
    - It gives finite images of the same shape and type, with values in 0..255, the same ones for
      the same numbers.
    - An image becomes the same alone, in a batch, and in another order: batches are divided over
      threads and processes.
    - It says for every image where points go.
    - Beside crop, flip and colour it shifts none of their random numbers. Beside a further
      transform both draw what they draw alone, in any order. It gives the same images on the path
      of a GPU as on that of the CPU.

    Args:
        create: Makes the transform.

    Raises:
        AssertionError: With what is wrong.
    """
    transform = create()
    drawn = transform.draw(torch.Generator().manual_seed(1), _COUNT)
    shape = (_COUNT, transform.width)
    _expect(drawn.shape == shape, f"draws {tuple(drawn.shape)}, allowed is {shape}")
    again = create().draw(torch.Generator().manual_seed(1), _COUNT)
    _expect(torch.equal(drawn, again), "draws other numbers from the same generator")
    images = _images()
    whole = transform.apply(images.clone(), drawn)
    _expect(whole.shape == images.shape, f"gives the shape {tuple(whole.shape)}")
    _expect(whole.dtype == images.dtype, f"gives {whole.dtype}, allowed is {images.dtype}")
    _expect(bool(torch.isfinite(whole).all()), "gives values that are not finite")
    inside = float(whole.min()) >= -0.5 and float(whole.max()) <= 255.5
    _expect(inside, f"gives values from {whole.min():.3g} to {whole.max():.3g}, allowed 0 to 255")
    repeated = create().apply(images.clone(), drawn)
    _expect(torch.equal(whole, repeated), "gives other images for the same numbers")
    for place in range(_COUNT):
        one = slice(place, place + 1)
        alone = transform.apply(images[one].clone(), drawn[one])[0]
        _expect(torch.equal(alone, whole[place]), "changes an image otherwise when it is alone")
    order = torch.arange(_COUNT - 1, -1, -1)
    turned = transform.apply(images[order].clone(), drawn[order])
    _expect(torch.equal(turned[order], whole), "changes images otherwise in another order")
    matrices = transform.matrices(drawn, _SIZE)
    _expect(
        matrices.shape == (_COUNT, 2, 3), f"gives matrices of the shape {tuple(matrices.shape)}"
    )
    if not hasattr(transform, "name"):
        transform.name = "checked"  # its entry point names it
    _check_streams(transform)
    _check_paths(transform)


def _check_streams(transform: Transform) -> None:
    changed = AugmentConfig(scale=0.5, flip=True, color=0.4)
    alone, with_it = (Augment(changed, _SIZE, _MEAN, _STD) for _ in range(2))
    with_it.further = [transform]
    rows = [
        each.draw_rows(_COUNT, torch.Generator().manual_seed(1), Streams(1))
        for each in (alone, with_it)
    ]
    basic = rows[0].shape[1]
    same = torch.equal(rows[1][:, :basic], rows[0])
    _expect(same, "shifts the random numbers of crop, flip and colour")
    other = _Neighbour()
    _expect(transform.name != other.name, f"has the name {other.name}, which is for tests")
    own, others = rows[1][:, basic:], _further([other])
    for pair in ([transform, other], [other, transform]):
        ours, theirs = _further(pair).split([each.width for each in pair], dim=1)
        if pair[0] is other:
            ours, theirs = theirs, ours
        _expect(torch.equal(ours, own), "draws other numbers beside another transform")
        _expect(torch.equal(theirs, others), "shifts the random numbers of another transform")


def _further(transforms: list[Transform]) -> Tensor:
    """Returns the rows that further transforms draw, in their order."""
    augment = Augment(AugmentConfig(scale=0.5, flip=True, color=0.4), _SIZE, _MEAN, _STD)
    augment.further = transforms
    rows = augment.draw_rows(_COUNT, torch.Generator().manual_seed(1), Streams(1))
    return rows[:, -sum(each.width for each in transforms) :]


class _Neighbour(Transform):
    """Stands beside the checked transform."""

    name = "neighbour_in_a_test"
    width = 3

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        return images


def _check_paths(transform: Transform) -> None:
    # Nothing is cut off or resized, which both paths do with other rounding.
    augment = Augment(AugmentConfig(scale=1, ratio=1, flip=False, color=0), _SIZE, _MEAN, _STD)
    augment.further = [transform]
    images = _images().round().byte()
    row = augment.draw_rows(_COUNT, torch.Generator().manual_seed(1), Streams(1))
    one_by_one = augment.apply(images, row).permute(0, 2, 3, 1)
    as_a_batch = augment.resample(images, row)
    # A thousandth of a level of 255, in units of the deviation.
    same = torch.allclose(one_by_one, as_a_batch, atol=1e-3 / (255 * min(_STD)))
    _expect(same, "gives other images on the path of a GPU")
    if torch.cuda.is_available():
        on_gpu = augment.apply(images.cuda(), row).cpu().permute(0, 2, 3, 1)
        close = torch.allclose(one_by_one, on_gpu, atol=1 / (255 * min(_STD)))
        _expect(close, "gives other images on a GPU")


def _images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 255 * torch.rand(_COUNT, _SIZE, _SIZE, 3, generator=generator)
