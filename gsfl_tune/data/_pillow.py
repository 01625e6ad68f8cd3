"""Process-wide settings of Pillow, changed only while images are read.

Pillow has no other way to read an image above its pixel limit or with a missing end. The first of
several readers changes a setting and the last one restores it. So a program that uses this package
keeps its own settings.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image, ImageFile


class _Shared:
    """Changes a setting of a module while several threads need it."""

    def __init__(self, module: Any, name: str, value: Any) -> None:
        self._module, self._name, self._value = module, name, value
        self._lock = threading.Lock()
        self._readers = 0
        self._before: Any = None

    @contextmanager
    def changed(self) -> Iterator[None]:
        with self._lock:
            if not self._readers:
                self._before = getattr(self._module, self._name)
                setattr(self._module, self._name, self._value)
            self._readers += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
                if not self._readers:
                    setattr(self._module, self._name, self._before)


_pixels = _Shared(Image, "MAX_IMAGE_PIXELS", None)
_truncated = _Shared(ImageFile, "LOAD_TRUNCATED_IMAGES", True)


def any_size() -> Any:
    """Lets Pillow open images of any size; the caller checks the size first."""
    return _pixels.changed()


@contextmanager
def truncated_too(wanted: bool) -> Iterator[None]:
    """Lets Pillow read images whose end is missing, if wanted."""
    if not wanted:
        yield
        return
    with _truncated.changed():
        yield
