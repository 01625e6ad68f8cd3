"""One image: from bytes of any kind to an upright RGB image, and from that to a square."""

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

# Filling of `pad`: the mean of ImageNet, which backbones see as (nearly) zero.
PAD_COLOR = (124, 116, 104)
# Enters cache keys: change it whenever the pixels that come out of this file change.
CODE_VERSION = 2
# Width times height above which an image is not decoded; of phones there are 108 and 200 million.
MAX_PIXELS = 200_000_000


@dataclass(frozen=True)
class Reading:
    """How the files of a data set are read: what is the same for all of them.

    Attributes:
        value_range: Values of deep grey images (16 and 32 bit, float) that become black and white,
            as somebody gave them; None: by their type, see `load_image`.
        float_range: The same of those alone whose type does not say it (32 bit, float), as the
            images of a data set have it.
        max_pixels: Width times height above which a file is refused.
        truncated: Whether a file whose end is missing is read as far as it goes.
        cut_bottom: Pixels cut from the lower edge, of the file's own.
    """

    value_range: tuple[float, float] | None = None
    float_range: tuple[float, float] | None = None
    max_pixels: int = MAX_PIXELS
    truncated: bool = False
    cut_bottom: int = 0

    @property
    def key(self) -> str:
        """What the pixels depend on, for cache keys; empty where nothing is special."""
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
    """Side of the squares for a backbone that sees ``image_size`` pixels: 1.15 x, rounded up."""
    return (image_size * 115 + 99) // 100


def load_image(
    source: str | os.PathLike[str] | bytes | Image.Image,
    *,
    side: int | None = None,
    fit: Fit = "crop",
    reading: Reading = PLAIN,
) -> Image.Image:
    """Reads an image as an upright RGB image with 8 bits a channel.

    Turns it as its EXIF orientation says, puts transparent pixels on white, converts grey,
    palette, CMYK and the rest, and takes the first frame of an animation. Deep grey values are
    scaled: those of 16 bits by 1/257, others so that 1, 255 or 65535, the least that none of them
    exceeds, becomes white, unless `reading` says otherwise.

    Args:
        source: A path, the content of a file, or an image that Pillow opened.
        side: The side of the square that will be made of it. Large JPEG files are then decoded
            at a half, a quarter or an eighth of their size, never below twice ``side``.
        fit: How the square will be made.
        reading: What is the same for all images of a data set.

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
    """Reads an image as a square, exactly as the decoded-image cache does.

    Args:
        source: A path, the content of a file, or an image that Pillow opened.
        side: Side of the square in pixels.
        fit: How it is made, see `square`.
        reading: What is the same for all images of a data set.
        formats: Names of Pillow's formats that are read; default: all.
        box: What is cut out first, in pixels of the upright file.
        margin: Added to it at each end, as a share of its sides.

    Returns:
        The square, (side, side, 3) uint8, and the (width, height) in pixels of the upright file,
        or of what was cut out of it.

    Raises:
        Exception: As `load_image`; ValueError if the box lies outside the image.
    """
    image, size = _load(source, side, fit, reading, formats, box, margin)
    if box is not None:
        image, size = _cut(image, size, box, margin)
    return square(image, side, fit), size


def region(box: Box, margin: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The whole pixels of a box with its margin, as far as they lie in the image.

    Args:
        box: In pixels of the image.
        margin: Added at each end, as a share of the box's sides.
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
        image: Upright.
        size: (width, height) of the upright file, which the box is measured in.
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
    heif()  # Pillow reads HEIC from then on, where the package is there
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
            # What is kept decides which side counts: the shorter one, or for `pad` the longer.
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
    """The image as RGB, and the (width, height) of its file as one looks at it.

    Args:
        image: Loaded, perhaps at a reduced scale.
        reading: What is the same for all images.
        size: (width, height) of the file; default: of the image.
    """
    width, height = size or image.size
    turned = _is_turned(image)
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block says nothing about the pixels
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
    """Whether EXIF says that width and height are those of the image on its side."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return False


def deep_extremes(content: bytes) -> tuple[float, float] | None:
    """Least and largest value of a grey image whose type does not say what white is.

    Args:
        content: Of a file.

    Returns:
        Of 32-bit and float images; None for all others, and for what cannot be read.
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
    """The range in which values from `low` to `high` were probably meant.

    From 0 (or the least value, where that is negative) to 1, 255 or 65535, the least of them that
    none exceeds, else to the largest value.
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
            # PNG: one value of 16 bits is transparent, which Pillow keeps and does not apply.
            clear = np.asarray(image).astype(np.int64) == transparent
            rgb.paste((255, 255, 255), (0, 0), Image.fromarray(clear))
        return rgb
    if image.mode == "RGB" and isinstance(transparent, tuple) and max(transparent) > 255:
        # PNG of 16 bits a channel, of which Pillow keeps the upper eight.
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
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PNG")
    by_type = (0.0, 65535.0) if sixteen else reading.float_range
    low, high = reading.value_range or by_type or natural_range(0.0, float(values.max()))
    scaled = (values - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
