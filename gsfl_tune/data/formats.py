"""Image formats: suffixes, first bytes, and formats that need another package."""

from __future__ import annotations

import functools

# fmt: off
IMAGE_SUFFIXES = frozenset([
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif",
])
# Photographs of phones; read with the package `pillow-heif` (extra `heic`).
HEIF_SUFFIXES = frozenset([".heic", ".heif", ".hif"])
_BEGINNINGS = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*",
)
# fmt: on
# Why a photograph of a phone cannot be read, whatever its name.
NEEDS_HEIF = "a HEIC image: `pip install 'gsfl-tune[heic]'` reads it"
_LFS = b"version https://git-lfs.github.com/spec/"


@functools.cache
def heif() -> bool:
    """Returns whether HEIC files can be read here; if so, Pillow opens them from then on."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def heif_key() -> str:
    """Returns what a cache key needs of the formats that can be read here; empty without HEIC."""
    return " heif" if heif() else ""


def looks_like_image(path: str) -> bool:
    """Returns whether a file begins like one of the usual formats."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(16)
    except OSError:
        return False
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return webp or start.startswith(_BEGINNINGS)


def why_no_image(content: bytes) -> str | None:
    """Returns what a file is that Pillow does not know; None if it is unknown.

    Args:
        content: The file's content, or its first bytes.
    """
    if not content:
        return "empty"
    if content.startswith(_LFS):
        return "a git-LFS pointer, not the image itself (`git lfs pull` fetches it)"
    if content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"mif1", b"hevc", b"msf1"):
        return NEEDS_HEIF
    if content.lstrip()[:9].lower() in (b"<!doctype", b"<html>\n") or b"<html" in content[:256]:
        return "a web page, not an image"
    return None
