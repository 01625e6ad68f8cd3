"""Settings of Pillow that hold for a whole process, changed while something is read.

Pillow has no other way to read an image of more pixels than its limit, or one whose end is missing.
The first reader of several changes a setting and the last one puts it back, so that a program that
uses this package keeps its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image, ImageFile


class _Shared:
    """A setting of a module that several threads need changed at once."""

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
    """A context in which Pillow opens images of any size; who opens one looks at its size first."""
    return _pixels.changed()


@contextmanager
def truncated_too(wanted: bool) -> Iterator[None]:
    """A context in which Pillow reads images whose end is missing, if that is wanted."""
    if not wanted:
        yield
        return
    with _truncated.changed():
        yield
