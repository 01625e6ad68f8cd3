"""What every storage can do: whole objects by name."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import IO

# Names that a run writes. Others are not ours, whoever put them there.
PIECE_BYTES = 8 << 20
_PART = re.compile(r"[A-Za-z0-9._@=+-]+")


def is_safe(name: str) -> bool:
    """Whether a name from a storage may become a path below a directory.

    Absolute names, ``..``, empty parts, backslashes and control characters may not.
    """
    return bool(name) and all(
        _PART.fullmatch(part) is not None and part not in (".", "..") for part in name.split("/")
    )


class Backend(ABC):
    """Objects by name, read and written as a whole: an object is the old one or the new one.

    Names are relative, with ``/`` between their parts (`is_safe`). Every method may raise
    `OSError` when the storage does not answer or refuses; what raised it can be done again.
    """

    @abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Writes an object in place of what was there."""

    @abstractmethod
    def get(self, name: str) -> bytes | None:
        """Reads an object; None where there is none."""

    def write_from(self, name: str, file: IO[bytes]) -> None:
        """Writes an object from a file that may be larger than the memory."""
        self.put(name, file.read())

    def read_into(self, name: str, write: Callable[[bytes], object]) -> bool:
        """Reads an object piece by piece; returns whether there is one."""
        data = self.get(name)
        if data is not None:
            write(data)
        return data is not None

    @abstractmethod
    def list(self, prefix: str = "") -> dict[str, int]:
        """Bytes of every object below a folder (all by default), by name; unsafe names left out.

        Args:
            prefix: Name of the folder, without ``/`` at its end.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Removes an object, if it is there."""
