"""Files that many processes want and one process builds."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path


def cache_directory() -> Path:
    """Where caches of this node live: ``$GSFL_TUNE_CACHE``, else ``~/.cache/gsfl-tune``."""
    given = os.environ.get("GSFL_TUNE_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "gsfl-tune"


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on ``path`` (created if missing), waiting for it if need be.

    The kernel releases the lock when the holder dies, however it dies. The lock file
    stays: removing it would let two processes hold locks on two files of one name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            # Some network file systems have no locks. Then several processes may build the
            # same file; the rename still keeps half-written ones out of sight.
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        yield
    finally:
        os.close(descriptor)


def build_once(path: Path, build: Callable[[Path], None]) -> Path:
    """Returns ``path``, building it first if it does not exist.

    Of several processes that ask at once, one builds and the others wait. What a crashed
    builder left behind is never read and is removed by the next builder.

    Args:
        path: File (or directory) to have. Its name must change whenever its content would.
        build: Writes the content to the path that it is given, a file or a directory.

    Raises:
        Exception: Whatever ``build`` raises; nothing is left behind then.
    """
    path = Path(path)
    if path.exists():
        return path
    with file_lock(path.with_name(path.name + ".lock")):
        if path.exists():
            return path
        # We hold the lock, so temporary files of this name have no living writer here.
        for leftover in path.parent.glob(f"{_escape(path.name)}.*.tmp"):
            _remove(leftover)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            build(temporary)
            publish(temporary, path)
        except BaseException:
            _remove(temporary)
            raise
    return path


def publish(temporary: Path, path: Path) -> None:
    """Makes ``temporary`` durable and gives it its final name in one step."""
    files = [temporary]
    if temporary.is_dir():
        files = [*(entry for entry in temporary.rglob("*")), temporary]
    for file in files:
        _sync(file)
    os.replace(temporary, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _escape(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
