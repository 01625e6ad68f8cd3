"""Pictures inside of a page."""

from __future__ import annotations

import base64
import io

from PIL import Image


def jpeg_url(picture: Image.Image, quality: int) -> str:
    """Encodes a picture as JPEG in a ``data:`` URL.

    Args:
        picture: RGB picture.
        quality: Quality of the JPEG, 1 to 95.
    """
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
