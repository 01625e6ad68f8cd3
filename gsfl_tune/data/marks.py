"""The mark that every synthetic image carries in its file."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

KEYWORD = "gsfl-tune-synthetic"
MADE = "synthetic, made by gsfl-tune synthesize"
_PNG = b"\x89PNG\r\n\x1a\n"
# Other programs may write the text again in another kind of chunk.
_CHUNKS = tuple(kind + KEYWORD.encode() + b"\0" for kind in (b"tEXt", b"iTXt", b"zTXt"))
# Texts stand before the pixels; a profile of colours may stand before them.
_FIRST_BYTES = 1 << 16


def marked_png(image: Image.Image, facts: Mapping[str, Any]) -> bytes:
    """Writes an image as PNG with the mark, and with how it was made.

    Args:
        image: RGB image.
        facts: Plain values, written as JSON into the text of the mark.
    """
    info = PngInfo()
    info.add_text(KEYWORD, json.dumps(facts))
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def is_marked(content: bytes) -> bool:
    """Returns whether the content of a file is a PNG with the mark."""
    if not content.startswith(_PNG):
        return False
    head = content[:_FIRST_BYTES]
    return any(chunk in head for chunk in _CHUNKS)
