"""Operations that every storage has: whole objects by name."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import IO

# Names that a run writes. Other objects are foreign.
PIECE_BYTES = 8 << 20
_PART = re.compile(r"[A-Za-z0-9._@=+-]+")


def is_safe(name: str) -> bool:
    """Returns whether a name from a storage may become a path below a directory.

    Refused are absolute names, ``..``, empty parts, backslashes and control characters.
    """
    return bool(name) and all(
        _PART.fullmatch(part) is not None and part not in (".", "..") for part in name.split("/")
    )


class Backend(ABC):
    """Reads and writes whole objects by name: an object is the old one or the new one.

    Names are relative, with ``/`` between their parts (`is_safe`). Every method may raise `OSError`
    if the storage does not answer or refuses; the call can then be repeated.
    """

    @abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Writes an object and replaces an existing one."""

    @abstractmethod
    def get(self, name: str) -> bytes | None:
        """Reads an object; None if there is none."""

    @abstractmethod
    def write_from(self, name: str, file: IO[bytes]) -> None:
        """Writes an object from a file, which may be larger than the memory."""

    @abstractmethod
    def read_into(self, name: str, write: Callable[[bytes], object]) -> bool:
        """Reads an object in pieces of `PIECE_BYTES` at most; returns whether it exists."""

    @abstractmethod
    def list(self, prefix: str = "") -> dict[str, int]:
        """Returns the bytes of every object below a folder, by name; unsafe names are left out.

        Args:
            prefix: Name of the folder without a final ``/``; empty for all objects.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Removes an object, if it exists."""
