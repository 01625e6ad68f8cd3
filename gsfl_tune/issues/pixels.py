"""Dark, bright, blurred, tiny, flat and oddly shaped images, compared with the other images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gsfl_tune.activity import activity
from gsfl_tune.data import DecodedImages
from gsfl_tune.data.image_file import Fit
from gsfl_tune.issues._base import LIMIT, Images, Issue, beyond

# With less fine structure (levels squared), an image is blank: neither sharp nor blurred.
_NO_GRADIENT = 0.05


@dataclass(frozen=True)
class Pixels:
    """Holds the measurements of N images.

    Attributes:
        darkest: (N,) level, 0 to 255, that a twentieth of the pixels are below.
        brightest: (N,) level that a twentieth of them are above.
        strongest: (N,) level that the strongest of the three colours of a twentieth of them is
            above. A red cloth has a low level, but is not dark.
        sharpness: (N,) log10 of the energy of second differences divided by that of first ones, at
            the size to which images are decoded; NaN for a blank one.
        sizes: (N, 2) width and height of the file in pixels.
    """

    darkest: np.ndarray
    brightest: np.ndarray
    strongest: np.ndarray
    sharpness: np.ndarray
    sizes: np.ndarray


def measure(images: Images, fit: Fit) -> Pixels:
    """Measures every image.

    Args:
        images: N images.
        fit: How they became squares; the border of `pad` is not measured.
    """
    total = len(images.paths)
    rows = np.empty((total, 4))
    sizes = [part.sizes for part, _ in images.parts]
    with activity("measuring the images", total, "images") as step:
        for part, _ in images.parts:
            for square in _inner(part, fit):
                rows[step.done] = _describe(square)
                step.done += 1
    darkest, brightest, strongest, sharpness = rows.T
    shapes = np.concatenate(sizes).astype(np.int64)
    return Pixels(darkest, brightest, strongest, sharpness, shapes)


def _inner(images: DecodedImages, fit: Fit) -> Iterator[np.ndarray]:
    """Yields the squares, without the border of `pad`."""
    side = images.side
    for row in range(len(images)):
        square = images.squares(np.array([row]))[0]
        if fit == "pad":
            width, height = (int(each) for each in images.sizes[row])
            scale = side / max(width, height)
            inner = [max(1, round(each * scale)) for each in (width, height)]
            left, top = ((side - each) // 2 for each in inner)
            square = square[top : top + inner[1], left : left + inner[0]]
        yield square


def _describe(square: np.ndarray) -> tuple[float, float, float, float]:
    grey = np.asarray(Image.fromarray(np.ascontiguousarray(square)).convert("L"))
    darkest, brightest = _levels(grey, 0.05, 0.95)
    (strongest,) = _levels(square.max(-1), 0.95)
    values = grey.astype(np.float32)
    first = sum(float(np.square(np.diff(values, axis=axis)).mean()) for axis in (0, 1))
    second = sum(float(np.square(np.diff(values, n=2, axis=axis)).mean()) for axis in (0, 1))
    sharp = np.log10(max(second, 1e-9) / first) if first > _NO_GRADIENT else np.nan
    return darkest, brightest, strongest, float(sharp)


def _levels(values: np.ndarray, *shares: float) -> list[float]:
    """Returns the levels that shares of the pixels are below."""
    below = np.cumsum(np.bincount(values.ravel(), minlength=256)) / values.size
    return [float(level) for level in np.searchsorted(below, shares)]


@dataclass(frozen=True)
class _Test:
    """Holds one measurement and its limit.

    Attributes:
        kind: Kind of the issue.
        values: (N,) larger is more unusual.
        floor: Least standard deviation, because the images of a data set may be nearly equal.
        also: (N,) bool, a further condition.
        words: Describes the measurement of an image.
    """

    kind: str
    values: np.ndarray
    floor: float
    also: np.ndarray
    words: Callable[[int], str]


def odd_pixels(images: Images, pixels: Pixels, image_size: int) -> list[Issue]:
    """Lists images that differ from most others of the data set.

    Args:
        images: N images.
        pixels: Their measurements.
        image_size: Side of the backbone's input in pixels; smaller images are enlarged.
    """
    if not len(pixels.sizes):
        return []
    paths, parts, labels = images.paths, images.part_names, images.labels
    found = []
    for test in _tests(pixels, image_size):
        known = np.isfinite(test.values)
        middle = float(np.median(test.values[known])) if known.any() else 0.0
        spread = (
            1.4826 * float(np.median(np.abs(test.values[known] - middle))) if known.any() else 0
        )
        limit = LIMIT * max(spread, test.floor)
        away = np.where(known, test.values - middle, -np.inf)
        for row in np.flatnonzero((away > limit) & test.also).tolist():
            found.append(
                Issue(
                    path=paths[row],
                    class_name=images.classes[labels[row]],
                    part=parts[row],
                    issue=test.kind,
                    score=beyond(float(away[row]), limit),
                    suggestion="",
                    reason=test.words(row),
                )
            )
    return found


def _tests(pixels: Pixels, image_size: int) -> list[_Test]:
    low, high, sharp = pixels.darkest, pixels.brightest, pixels.sharpness
    strong = pixels.strongest
    sides = pixels.sizes.clip(1)
    shorter = sides.min(1)
    shape = np.log2(sides.max(1) / shorter)
    odd_shape = np.abs(shape - np.median(shape))

    def middle(values: np.ndarray) -> str:
        return f"{np.nanmedian(values):.0f}"

    return [
        _Test(
            "dark", -strong, 5.0, strong < 128,
            lambda row: f"95 % of the pixels are below {strong[row]:.0f} of 255 in every colour; "
            f"of most images below {middle(strong)}",
        ),
        _Test(
            "bright", low, 5.0, low > 128,
            lambda row: f"95 % of the pixels are above {low[row]:.0f} of 255; of most images above "
            f"{middle(low)}",
        ),
        _Test(
            "low_contrast", low - high, 5.0, high - low < 128,
            lambda row: f"levels {low[row]:.0f} to {high[row]:.0f} of 255, a range of "
            f"{high[row] - low[row]:.0f}; of most images {middle(high - low)}",
        ),
        _Test(
            "blurred", -sharp, 0.1, np.ones(len(sharp), bool),
            lambda row: f"fine structure is {10 ** sharp[row]:.3f} of the edges; in most images "
            f"{10 ** np.nanmedian(sharp):.2f}",
        ),
        _Test(
            "tiny", -np.log2(shorter), 0.1, shorter < image_size,
            lambda row: f"{sides[row][0]} x {sides[row][1]} pixels, enlarged to {image_size}; "
            f"the shorter side of most is {middle(shorter)}",
        ),
        # At least twice as long or as short as the median image.
        _Test(
            "aspect_ratio", odd_shape, 0.1, odd_shape >= 1,
            lambda row: f"{sides[row][0]} x {sides[row][1]} pixels, {2 ** shape[row]:.1f} to 1; "
            f"most are {2 ** np.median(shape):.1f} to 1",
        ),
    ]  # fmt: skip
