"""The pictures of the evidence, embedded in the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

# Bytes of all pictures of a page, before base64 adds a third.
BUDGET = 1_700_000
_SIGNATURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
_LARGEST = 4_000_000
_SMALLEST_SCALE = 0.45


@dataclass(frozen=True)
class Picture:
    """Holds one picture with its text.

    Attributes:
        kind: ``confused``, ``group`` or ``gradcam``.
        title: What it shows.
        caption: What can be seen.
        classes: Names of the classes on it.
        source: ``data:`` URL.
        width: In pixels, as embedded.
        height: In pixels, as embedded.
        group: The group of the classes, if all are of one group.
    """

    kind: str
    title: str
    caption: str
    classes: tuple[str, ...]
    source: str
    width: int
    height: int
    group: int | None = None


@dataclass(frozen=True)
class Pictures:
    """Holds the pictures of a run.

    Attributes:
        shown: Pictures on the page.
        problems: Files that could not be used, one line each.
        scale: Factor of the sides that makes all pictures fit.
    """

    shown: list[Picture] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    scale: float = 1.0

    def of(self, kind: str) -> list[Picture]:
        """Returns the pictures of one kind."""
        return [picture for picture in self.shown if picture.kind == kind]

    def pair(self, classes: Sequence[str]) -> Picture | None:
        """Returns the picture of a confused pair."""
        wanted = set(classes)
        return next((p for p in self.of("confused") if set(p.classes) == wanted), None)


def load_pictures(
    run: Path, entries: Iterable[Mapping[str, Any]] | None, budget: int = BUDGET
) -> Pictures:
    """Reads the files that the evidence names and scales them to fit the page.

    Args:
        run: The run directory; nothing outside of it is read.
        entries: ``pictures`` of ``evidence.json``.
        budget: Bytes of all pictures together. Beyond it all are scaled by one factor; pictures
            that still do not fit are left out.
    """
    problems: list[str] = []
    found: list[tuple[Mapping[str, Any], bytes]] = []
    for entry in entries or ():
        content = _read(run, str(entry.get("file", "")), problems)
        if content is not None:
            found.append((entry, content))
    total = sum(len(content) for _, content in found)
    # The size of a JPEG is roughly proportional to its area.
    scale = 1.0 if total <= budget else max(_SMALLEST_SCALE, 0.95 * math.sqrt(budget / total))
    shown: list[Picture] = []
    used = 0
    for entry, content in found:
        small, size = _shrunk(content, scale, str(entry.get("file")), problems)
        if used + len(small) > budget:
            problems.append(f"{entry.get('file')}: left out, the page would be too large")
            continue
        if size is not None:
            used += len(small)
            shown.append(_picture(entry, small, size))
    return Pictures(shown, problems, scale)


def picture_url(run: Path, name: str) -> str | None:
    """Returns a picture of a run as a ``data:`` URL; None if it is not there or not one.

    Args:
        run: The run directory; nothing outside of it is read.
        name: The file, relative to the run directory.
    """
    content = _read(run, name, [])
    return None if content is None else _url(content)


def _picture(entry: Mapping[str, Any], content: bytes, size: tuple[int, int]) -> Picture:
    group = entry.get("group")
    return Picture(
        kind=str(entry.get("kind", "")),
        title=str(entry.get("title", "")),
        caption=str(entry.get("caption", "")),
        classes=tuple(str(name) for name in entry.get("classes") or ()),
        source=_url(content),
        width=size[0],
        height=size[1],
        group=group if isinstance(group, int) else None,
    )


def _url(content: bytes) -> str:
    return f"data:{_type(content)};base64,{base64.b64encode(content).decode()}"


def _read(run: Path, name: str, problems: list[str]) -> bytes | None:
    root = run.resolve()
    path = (root / name).resolve()
    if not name or not path.is_relative_to(root):
        problems.append(f"{name or 'a picture'}: not a file of the run")
        return None
    try:
        if path.stat().st_size > _LARGEST:
            problems.append(f"{name}: larger than {_LARGEST // 1_000_000} MB, left out")
            return None
        content = path.read_bytes()
    except OSError as error:
        problems.append(f"{name}: {error.strerror or error}")
        return None
    if _type(content) is None:
        problems.append(f"{name}: neither JPEG nor PNG")
        return None
    return content


def _type(content: bytes) -> str | None:
    return next((kind for magic, kind in _SIGNATURES.items() if content.startswith(magic)), None)


def _shrunk(
    content: bytes, scale: float, name: str, problems: list[str]
) -> tuple[bytes, tuple[int, int] | None]:
    try:
        with Image.open(io.BytesIO(content)) as image:
            if scale >= 1:
                return content, image.size
            side = tuple(max(1, round(each * scale)) for each in image.size)
            smaller = image.convert("RGB").resize((side[0], side[1]), Image.Resampling.LANCZOS)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        problems.append(f"{name}: {error}")
        return b"", None
    buffer = io.BytesIO()
    smaller.save(buffer, "JPEG", quality=75, optimize=True)
    return buffer.getvalue(), smaller.size
