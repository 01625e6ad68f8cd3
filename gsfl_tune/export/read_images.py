"""Reader of single images for a bundle: paths, file contents, Pillow images and arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from gsfl_tune.arguments import shown
from gsfl_tune.data.fetch import FetchError
from gsfl_tune.data.formats import why_no_image
from gsfl_tune.data.image_file import Box, Fit, Reading, load_square
from gsfl_tune.experiment.errors import UserError, first_line

__all__ = ["ImageError", "ImageSource", "LazyImage", "named_square"]


@dataclass(frozen=True)
class LazyImage:
    """Holds an image that is read when needed and then released.

    Attributes:
        name: Its name in messages and predictions.
        read: Returns the content of its file, or the image; its error says why there is none.
        box: Box that is cut out first, in pixels of the upright file; None for the whole image.
        margin: Margin at each end of the box, as a share of its sides.
    """

    name: str
    read: Callable[[], bytes | Image.Image]
    box: Box | None = None
    margin: float = 0.0


ImageSource = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | LazyImage


class ImageError(UserError):
    """Signals an image that cannot be read; ``missing`` says if there is no such file."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


_ALLOWED = "a path, the content of a file, a Pillow image, or a (H, W, 3) or (H, W) uint8 array"


def images_of(images: Any) -> Iterable[ImageSource]:
    """Returns images to go through; a single one is a list of one.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(images, str | os.PathLike | bytes | Image.Image | LazyImage):
        return [images]
    if isinstance(images, np.ndarray):
        coloured = images.ndim == 3 and images.shape[2] in (3, 4)
        return [images] if images.ndim < 3 or coloured else images
    if isinstance(images, Mapping) or not isinstance(images, Iterable):
        raise TypeError(f"images: found {shown(images)}, allowed {_ALLOWED}, or several of them")
    return images


def named_square(
    numbered: tuple[int, ImageSource], *, side: int, fit: Fit, reading: Reading
) -> tuple[str, np.ndarray | ImageError]:
    """Reads an image as a square.

    Args:
        numbered: The image and its position, which is its name if it has none.
        side: Side of the square in pixels.
        fit: How the square is made.
        reading: How its file is read.

    Returns:
        Its name, and the (side, side, 3) uint8 square or the error.
    """
    number, image = numbered
    name = f"image {number}"
    if isinstance(image, LazyImage):
        name = image.name
    elif isinstance(image, str | os.PathLike):
        name = os.fspath(image)
    try:
        return name, _square(image, name, side, fit, reading)
    except ImageError as error:
        return name, error


def _square(image: ImageSource, name: str, side: int, fit: Fit, reading: Reading) -> np.ndarray:
    box: Box | None = None
    margin = 0.0
    try:
        if isinstance(image, LazyImage):
            box, margin = image.box, image.margin
            image = image.read()
        if not isinstance(image, str | os.PathLike | bytes | Image.Image | np.ndarray):
            raise TypeError(f"found {shown(image)}, allowed {_ALLOWED}")
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8:
                raise ValueError(f"an array must be uint8, got {image.dtype}")
            image = Image.fromarray(image)
        return load_square(image, side, fit, reading=reading, box=box, margin=margin)[0]
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file", missing=True) from error
    except FetchError as error:
        raise ImageError(f"{name}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise many kinds for a damaged file
        raise ImageError(f"{name}: cannot be read as an image ({_why(error, image)})") from error


def _why(error: Exception, image: ImageSource) -> str:
    if isinstance(error, UnidentifiedImageError):
        # Pillow's own message contains the address of a buffer.
        start = image if isinstance(image, bytes) else b""
        if isinstance(image, str | os.PathLike):
            start = Path(image).read_bytes()[:4096] if Path(image).is_file() else b""
        told = why_no_image(start) if isinstance(image, bytes | str | os.PathLike) else None
        return told or "not an image that Pillow can read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)
