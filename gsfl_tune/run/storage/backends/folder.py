"""A path as storage: a shared mount, a mounted bucket or a disk."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run.atomic import write_bytes
from gsfl_tune.run.storage.backends.base import PIECE_BYTES, Backend, is_safe


class Folder(Backend):
    """Stores objects in a directory.

    Links in it are not followed. A directory that disappeared, such as an unmounted share, is not
    created again: files below an empty mount point would be lost.

    Args:
        path: The directory.
        create: Whether to create it if it does not exist.

    Raises:
        OSError: If it does not exist and cannot be created.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        if create:
            path.mkdir(parents=True, exist_ok=True)
        self._root = path
        self._identity = self._look()

    def put(self, name: str, data: bytes) -> None:
        """Writes a temporary file and renames it."""
        write_bytes(self._path(name), data)

    def get(self, name: str) -> bytes | None:
        """Reads a file."""
        path = self._path(name)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _link(path) from error
            raise
        with os.fdopen(handle, "rb") as file:
            return file.read()

    def write_from(self, name: str, file: IO[bytes]) -> None:
        """Copies a file and renames it."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("xb") as target:
                shutil.copyfileobj(file, target, PIECE_BYTES)
                target.flush()
                os.fsync(target.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def read_into(self, name: str, write: Callable[[bytes], object]) -> bool:
        """Reads a file in pieces."""
        path = self._path(name)
        if path.is_symlink():
            raise _link(path)
        try:
            with path.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    write(piece)
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> dict[str, int]:
        """Walks the directory."""
        found = {}
        top = self._path(prefix) if prefix else self._there()
        for folder, _, names in os.walk(top, onerror=_unless_gone):
            for name in names:
                path = os.path.join(folder, name)
                relative = os.path.relpath(path, self._root)
                if name.endswith(".tmp") or os.path.islink(path) or not is_safe(relative):
                    continue
                try:
                    found[relative] = os.stat(path).st_size
                except FileNotFoundError:
                    continue  # removed meanwhile
        return found

    def delete(self, name: str) -> None:
        """Removes a file."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        if not is_safe(name):
            raise ValueError(f"{name!r} is not the name of an object")
        path = self._there() / name
        if not path.parent.resolve().is_relative_to(self._root.resolve()):
            raise _link(path.parent)
        return path

    def _there(self) -> Path:
        if self._look() != self._identity:
            raise OSError(errno.ESTALE, "is another directory now; was it unmounted?", self._root)
        return self._root

    def _look(self) -> tuple[int, int]:
        found = os.stat(self._root)
        return found.st_dev, found.st_ino


def _unless_gone(error: OSError) -> None:
    """Raises what keeps a folder from being read; a missing one has no objects."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _link(path: Path) -> UserError:
    return UserError(f"{path}: is a link, and links in a storage are not followed")
