"""Reads one image: from bytes to an upright RGB image, and from that to a square."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

from gsfl_tune.data._pillow import any_size, truncated_too
from gsfl_tune.data.formats import heif

Fit = Literal["crop", "pad", "squash"]
# (x0, y0, x1, y1) in pixels of the upright image, x to the right, y down.
Box = tuple[float, float, float, float]

# Fill colour of `pad`: the mean of ImageNet, which backbones see as (nearly) zero.
PAD_COLOR = (124, 116, 104)
# Part of cache keys; change it when this file computes other pixels.
CODE_VERSION = 3
# Width times height above which an image is not decoded; phones have up to 200 million.
MAX_PIXELS = 200_000_000


@dataclass(frozen=True)
class Reading:
    """Holds the settings for reading all files of a data set.

    Attributes:
        value_range: Values of deep grey images (16 and 32 bit, float) that become black and white,
            if given; None: by their type, see `load_image`.
        float_range: The same for types without a defined range (32 bit, float), from the values of
            the data set's images.
        max_pixels: Width times height above which a file is refused.
        truncated: Whether a file with a missing end is read as far as possible.
        cut_bottom: Pixels of the file cut from the lower edge.
    """

    value_range: tuple[float, float] | None = None
    float_range: tuple[float, float] | None = None
    max_pixels: int = MAX_PIXELS
    truncated: bool = False
    cut_bottom: int = 0

    @property
    def key(self) -> str:
        """Returns the settings that pixels depend on, for cache keys; empty for the defaults."""
        parts = []
        if self.value_range is not None:
            parts.append(f"values {self.value_range[0]:.9g} {self.value_range[1]:.9g}")
        if self.float_range is not None:
            parts.append(f"floats {self.float_range[0]:.9g} {self.float_range[1]:.9g}")
        if self.max_pixels != MAX_PIXELS:
            parts.append(f"at most {self.max_pixels}")
        if self.truncated:
            parts.append("truncated")
        if self.cut_bottom:
            parts.append(f"cut {self.cut_bottom}")
        return " ".join(parts)


PLAIN = Reading()


def square_side(image_size: int) -> int:
    """Returns the side of the squares for ``image_size`` pixels: 1.15 times, rounded up."""
    return (image_size * 115 + 99) // 100


def load_image(
    source: str | os.PathLike[str] | bytes | Image.Image,
    *,
    side: int | None = None,
    fit: Fit = "crop",
    reading: Reading = PLAIN,
) -> Image.Image:
    """Reads an image as an upright RGB image with 8 bits a channel.

    Applies the EXIF orientation, puts transparent pixels on white, converts grey, palette, CMYK and
    other modes, and uses the first frame of an animation. Deep grey values are scaled. Those of 16
    bits are divided by 257. For others white is the smallest of 1, 255 and 65535 that no value
    exceeds. `reading` can change both.

    Args:
        source: A path, the content of a file, or an image that Pillow opened.
        side: The side of the square that will be made of it. Large JPEG files are then decoded
            at a half, a quarter or an eighth of their size, never below twice ``side``.
        fit: How the square will be made, see `square`.
        reading: Settings for all images of a data set.

    Raises:
        Exception: OSError, ValueError, SyntaxError and others, if Pillow cannot read it, it is
            truncated, or has too many pixels.
    """
    return _load(source, side, fit, reading)[0]


def square(image: Image.Image, side: int, fit: Fit = "crop") -> np.ndarray:
    """Makes a square of an RGB image.

    Args:
        image: RGB image of any size.
        side: Side of the square in pixels.
        fit: ``crop`` cuts the longer side about the centre, ``pad`` fills the shorter one up,
            ``squash`` ignores the aspect ratio.

    Returns:
        (side, side, 3) uint8.
    """
    width, height = image.size
    if fit == "pad":
        scale = side / max(width, height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        canvas = Image.new("RGB", (side, side), PAD_COLOR)
        resized = image.resize(inner, Image.Resampling.BICUBIC, reducing_gap=3.0)
        canvas.paste(resized, ((side - inner[0]) // 2, (side - inner[1]) // 2))
        return np.array(canvas)
    box = (0.0, 0.0, float(width), float(height))
    if fit == "crop":
        edge = min(width, height)
        left, top = (width - edge) / 2, (height - edge) / 2
        box = (left, top, left + edge, top + edge)
    if box == (0.0, 0.0, float(side), float(side)):
        return np.array(image)
    return np.array(image.resize((side, side), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0))


def load_square(
    source: str | os.PathLike[str] | bytes | Image.Image,
    side: int,
    fit: Fit = "crop",
    *,
    reading: Reading = PLAIN,
    formats: tuple[str, ...] | None = None,
    box: Box | None = None,
    margin: float = 0.0,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Reads an image as a square, in the same way as the decoded-image cache.

    Args:
        source: A path, the content of a file, or an image that Pillow opened.
        side: Side of the square in pixels.
        fit: How the square is made, see `square`.
        reading: Settings for all images of a data set.
        formats: Names of allowed Pillow formats; default: all.
        box: Box that is cut out first, in pixels of the upright file.
        margin: Margin at each end of the box, as a share of its sides.

    Returns:
        The square, (side, side, 3) uint8, and the (width, height) in pixels of the upright file,
        or of the part cut out of it.

    Raises:
        Exception: As `load_image`; ValueError if the box lies outside the image.
    """
    image, size = _load(source, side, fit, reading, formats, box, margin)
    if box is not None:
        image, size = _cut(image, size, box, margin)
    return square(image, side, fit), size


def region(box: Box, margin: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns the whole pixels of a box with its margin, limited to the image.

    Args:
        box: Box in pixels of the image.
        margin: Margin at each end, as a share of the box's sides.
        size: (width, height) of the image.

    Returns:
        (left, top, right, bottom), at least one pixel wide and high.

    Raises:
        ValueError: If the box has no pixel in common with the image.
    """
    width, height = size
    if min(box[2], width) <= max(box[0], 0) or min(box[3], height) <= max(box[1], 0):
        shown = ", ".join(f"{value:g}" for value in box)
        raise ValueError(f"its box ({shown}) lies outside the image of {width} x {height} pixels")
    wider, higher = margin * (box[2] - box[0]), margin * (box[3] - box[1])
    left, right = _pixels(box[0] - wider, box[2] + wider, width)
    top, bottom = _pixels(box[1] - higher, box[3] + higher, height)
    return left, top, right, bottom


def _pixels(low: float, high: float, end: int) -> tuple[int, int]:
    first = min(max(0, round(low)), end - 1)
    return first, max(first + 1, min(end, round(high)))


def _cut(
    image: Image.Image, size: tuple[int, int], box: Box, margin: float
) -> tuple[Image.Image, tuple[int, int]]:
    """Cuts a box out of an image that may have been decoded at a reduced scale.

    Args:
        image: The upright image.
        size: (width, height) of the upright file, in whose pixels the box is given.
        box: The box.
        margin: Its margin.
    """
    left, top, right, bottom = region(box, margin, size)
    across, down = image.width / size[0], image.height / size[1]
    x0, x1 = _pixels(left * across, right * across, image.width)
    y0, y1 = _pixels(top * down, bottom * down, image.height)
    return image.crop((x0, y0, x1, y1)), (right - left, bottom - top)


def _load(
    source: str | os.PathLike[str] | bytes | Image.Image,
    side: int | None,
    fit: Fit,
    reading: Reading,
    formats: tuple[str, ...] | None = None,
    box: Box | None = None,
    margin: float = 0.0,
) -> tuple[Image.Image, tuple[int, int]]:
    if isinstance(source, Image.Image):
        return _upright(source, reading)
    heif()  # from then on Pillow reads HEIC, if the package is installed
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    with any_size():
        image = Image.open(stream, formats=formats)
    with image:
        width, height = image.size
        if width * height > reading.max_pixels:
            raise ValueError(
                f"{width} x {height} pixels are more than data.max_pixels, {reading.max_pixels:,}"
            )
        if side is not None and image.format == "JPEG":
            # The shorter side counts; for `pad` the longer one.
            kept = (width, height)
            if box is not None:
                shown = (height, width) if _is_turned(image) else kept
                left, top, right, bottom = region(box, margin, shown)
                kept = (right - left, bottom - top)
            scale = 2 * side / (max if fit == "pad" else min)(kept)
            if scale < 1:
                image.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))
        with truncated_too(reading.truncated):
            image.load()
        return _upright(image, reading, (width, height))


def _upright(
    image: Image.Image, reading: Reading, size: tuple[int, int] | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Returns the image as RGB, and the (width, height) of its upright file.

    Args:
        image: Loaded image, perhaps at a reduced scale.
        reading: Settings for all images.
        size: (width, height) of the file; default: of the image.
    """
    width, height = size or image.size
    turned = _is_turned(image)
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block does not affect the pixels
        turned, upright = False, image
    rgb = _to_rgb(upright, image.format, reading)
    if turned:
        width, height = height, width
    cut = round(reading.cut_bottom * rgb.height / height)
    if 0 < cut < rgb.height:
        rgb = rgb.crop((0, 0, rgb.width, rgb.height - cut))
        height -= reading.cut_bottom
    return rgb, (width, height)


def _is_turned(image: Image.Image) -> bool:
    """Returns whether EXIF rotates the image by 90 degrees, so that width and height swap."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except Exception:  # a damaged EXIF block does not affect the pixels
        return False


def deep_extremes(content: bytes) -> tuple[float, float] | None:
    """Returns the smallest and largest value of a grey image whose type does not define white.

    Args:
        content: Content of a file.

    Returns:
        The values of 32-bit and float images; None for others, and for unreadable files.
    """
    if not content.startswith((b"II*\x00", b"MM\x00*")):
        return None
    try:
        with any_size(), Image.open(io.BytesIO(content)) as image:
            if image.mode not in ("I", "F") or image.width * image.height > MAX_PIXELS:
                return None
            values = np.asarray(image)
    except Exception:  # decoding will find it broken, and say why
        return None
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if known.size else None


def natural_range(low: float, high: float) -> tuple[float, float]:
    """Returns the range in which values from `low` to `high` were probably meant.

    It begins at 0, or at `low` if that is negative. It ends at the smallest of 1, 255 and 65535
    that is not exceeded, else at `high`.
    """
    top = next((full for full in (1.0, 255.0, 65535.0) if high <= full), high)
    return min(0.0, low), top


def _to_rgb(image: Image.Image, file_format: str | None, reading: Reading) -> Image.Image:
    transparent = image.info.get("transparency")
    if image.mode == "RGB" and transparent is None:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        rgb = Image.fromarray(_to_bytes(image, file_format, reading)).convert("RGB")
        if isinstance(transparent, int):
            # PNG: one 16-bit value is transparent; Pillow keeps it but does not apply it.
            clear = np.asarray(image).astype(np.int64) == transparent
            rgb.paste((255, 255, 255), (0, 0), Image.fromarray(clear))
        return rgb
    if image.mode == "RGB" and isinstance(transparent, tuple) and max(transparent) > 255:
        # PNG with 16 bits per channel, of which Pillow keeps the upper eight.
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_bytes(image: Image.Image, file_format: str | None, reading: Reading) -> np.ndarray:
    """Scales deep grey values to (H, W) uint8."""
    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    # Pillow reads a PGM of more than 8 bits as 0 to 65535, whatever its own maximum.
    whole = image.mode == "I" and file_format in ("PNG", "PPM")
    sixteen = image.mode.startswith("I;16") or whole
    by_type = (0.0, 65535.0) if sixteen else reading.float_range
    low, high = reading.value_range or by_type or natural_range(0.0, float(values.max()))
    scaled = (values - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
