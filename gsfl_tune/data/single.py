"""One image: from bytes of any kind to an upright RGB image, and from that to a square."""

from __future__ import annotations

import io
import math
import os
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

from gsfl_tune.data.formats import heif

Fit = Literal["crop", "pad", "squash"]

# Filling of `pad`: the mean of ImageNet, which backbones see as (nearly) zero.
PAD_COLOR = (124, 116, 104)
# Enters cache keys: change it whenever the pixels that come out of this file change.
CODE_VERSION = 1


def square_side(image_size: int) -> int:
    """Side of the squares for a backbone that sees ``image_size`` pixels: 1.15 x, rounded up."""
    return (image_size * 115 + 99) // 100


def load_image(
    source: str | os.PathLike[str] | bytes, *, side: int | None = None, fit: Fit = "crop"
) -> Image.Image:
    """Reads an image file as an upright RGB image with 8 bits a channel.

    Turns it as its EXIF orientation says, puts transparent pixels on white, scales 16-bit
    values by 1/257, converts grey, palette, CMYK and the rest, and takes the first frame
    of an animation.

    Args:
        source: A path, or the content of a file.
        side: The side of the square that will be made of it. Large JPEG files are then decoded
            at a half, a quarter or an eighth of their size, never below twice ``side``.
        fit: How the square will be made.

    Raises:
        Exception: OSError, ValueError, SyntaxError and others, if Pillow cannot read it, it is
            truncated, or has more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    return _load(source, side, fit)[0]


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
    source: str | os.PathLike[str] | bytes,
    side: int,
    fit: Fit = "crop",
    *,
    formats: tuple[str, ...] | None = None,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Reads an image file as a square, exactly as the decoded-image cache does.

    Args:
        source: A path, or the content of a file.
        side: Side of the square in pixels.
        fit: How it is made, see `square`.
        formats: Names of Pillow's formats that are read; default: all.

    Returns:
        The square, (side, side, 3) uint8, and the (width, height) of the upright file in pixels.

    Raises:
        Exception: As `load_image`.
    """
    image, size = _load(source, side, fit, formats)
    return square(image, side, fit), size


def _load(
    source: str | os.PathLike[str] | bytes,
    side: int | None,
    fit: Fit,
    formats: tuple[str, ...] | None = None,
) -> tuple[Image.Image, tuple[int, int]]:
    heif()  # Pillow reads HEIC from then on, where the package is there
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    with Image.open(stream, formats=formats) as image:
        width, height = image.size
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and width * height > limit:
            raise ValueError(f"{width} x {height} pixels are more than the limit of {limit}")
        if side is not None and image.format == "JPEG":
            # What is kept decides which side counts: the shorter one, or for `pad` the longer.
            scale = 2 * side / (max if fit == "pad" else min)(width, height)
            if scale < 1:
                image.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))
        image.load()
        try:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            upright = ImageOps.exif_transpose(image)
        except Exception:  # a damaged EXIF block says nothing about the pixels
            turned, upright = False, image
        return _to_rgb(upright, image.format), (height, width) if turned else (width, height)


def _to_rgb(image: Image.Image, file_format: str | None) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_bytes(image, file_format)).convert("RGB")
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_bytes(image: Image.Image, file_format: str | None) -> np.ndarray:
    """Scales deep grey values to (H, W) uint8."""
    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0.0))
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PNG"):
        full = 65535.0
    elif image.mode == "F" and top <= 1.0:
        full = 1.0
    elif top <= 255.0:
        full = 255.0
    elif top <= 65535.0:
        full = 65535.0
    else:
        full = top
    return np.clip(np.rint(values * (255.0 / full)), 0, 255).astype(np.uint8)
