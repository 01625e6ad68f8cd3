"""Decoding of untrusted image bytes to a square, with limits and error reasons."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image, UnidentifiedImageError

from gsfl_tune.data.formats import heif, why_no_image
from gsfl_tune.data.image_file import load_square
from gsfl_tune.experiment.errors import first_line
from gsfl_tune.export import Preprocessing
from gsfl_tune.serve.problems import Problem

# Formats that cameras and browsers write. Pillow's readers of other formats start programs (EPS)
# or are little reviewed.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000"),
    # Photographs of phones, with the extra `heic`.
    *(("HEIF",) if heif() else ()),
)


def decode(data: bytes, preprocessing: Preprocessing, max_pixels: int) -> np.ndarray:
    """Makes the square that the bundle's network was validated on.

    Args:
        data: Content of an image file.
        preprocessing: The bundle's preprocessing.
        max_pixels: Largest width times height that is decoded.

    Returns:
        (side, side, 3) uint8.

    Raises:
        Problem: 413 for too many pixels, 415 if it is not an image, 422 for a damaged one, 400 for
            no data.
    """
    check_image(data, max_pixels)
    try:
        reading = replace(preprocessing.reading, max_pixels=max_pixels)
        side, fit = preprocessing.side, preprocessing.fit
        return load_square(data, side, fit, reading=reading, formats=FORMATS)[0]
    except MemoryError:
        raise
    except Exception as error:
        raise damaged(error) from error


def check_image(data: bytes, max_pixels: int) -> None:
    """Checks what is known without decoding: the format and the number of pixels.

    Args:
        data: Content of an image file.
        max_pixels: Largest width times height.

    Raises:
        Problem: As `decode`.
    """
    if not data:
        raise Problem(400, "no_image", "there is no image: send it as the body or as a file part")
    try:
        # Reads only the header.
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except UnidentifiedImageError as error:
        reason = f"not an image in one of the formats {', '.join(FORMATS)}"
        told = why_no_image(data[:4096])
        raise Problem(415, "not_an_image", f"{reason}: {told}" if told else reason) from error
    except Image.DecompressionBombError as error:
        raise Problem(413, "too_many_pixels", f"more than {max_pixels} pixels") from error
    except Exception as error:  # Pillow's plugins raise many kinds for a damaged file
        raise damaged(error) from error
    if width * height > max_pixels:
        raise Problem(
            413, "too_many_pixels", f"{width} x {height} pixels are more than {max_pixels}"
        )


def damaged(error: Exception) -> Problem:
    """Returns the problem of a file that cannot be decoded."""
    return Problem(422, "damaged_image", f"cannot be read as an image ({first_line(error)})")
