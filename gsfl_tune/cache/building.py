"""Files that many processes want and one process builds."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gsfl_tune.activity import activity
from gsfl_tune.cache.entries import (
    DIRECTORY_VARIABLE,
    LIMIT_VARIABLE,
    cache_of,
    describe,
    forget,
    lock_file,
    make_room,
    parse_limit,
    remove_path,
    touch,
)
from gsfl_tune.cache.locks import ReadLock, file_lock, read_lock
from gsfl_tune.cache.shared import shared_builder
from gsfl_tune.experiment.errors import EnvironmentProblem

# EFBIG: a quota of the process (ulimit -f) is as full as a disk can be.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_held: dict[Path, ReadLock] = {}
_built = threading.local()


def cache_seconds() -> float:
    """Returns the seconds in which this thread, since it began, has built or waited for caches."""
    return float(getattr(_built, "seconds", 0.0))


def acquire(
    path: Path, build: Callable[[Path], None], *, what: str = "", size: int = 0
) -> ReadLock:
    """Takes ``path`` into use, building it first if it does not exist.

    Of several processes that ask at once, one builds and the others wait. What a crashed
    builder left behind is never read and is removed by the next builder. In a folder of a
    cache, what was not used for longest is evicted where the cache would outgrow its limit.

    Args:
        path: File (or directory) to have. Its name must change whenever its content would.
        build: Writes the content to the path that it is given, a file or a directory.
        what: What it is, for people.
        size: Bytes that it will have, 0 if unknown: the disk is looked at before anything is
            written.

    Returns:
        The lock: until it is closed, the entry is there. Give it to what reads the file with
        `ReadLock.keep_with`, or read inside a ``with`` block.

    Raises:
        EnvironmentProblem: If the cache cannot be written.
        UserError: If the limit of the cache is not a limit.
        Exception: Whatever ``build`` raises; nothing is left behind then.
    """
    path = Path(path)
    # Before hours of work, and also where nothing is built today.
    parse_limit(os.environ.get(LIMIT_VARIABLE))
    cache = cache_of(path)
    words = f"{path.parent.name} ({what})" if what else "what is needed here"
    with _explained(cache or path.parent, words):
        lock = read_lock(path)
        if lock is None:
            begun, before = time.perf_counter(), cache_seconds()
            with file_lock(lock_file(path), f"builds {words}"):
                lock = read_lock(path)
                if lock is None and cache is not None:
                    shared = shared_builder(path, build)
                    lock = _build_cached(path, shared, cache, what, words, size)
                elif lock is None:
                    lock = _build(path, build)
            # What was built on the way, for this one, is part of it.
            _built.seconds = before + time.perf_counter() - begun
        if cache is not None:
            touch(path, what)
    return lock


def build_once(path: Path, build: Callable[[Path], None], *, what: str = "", size: int = 0) -> Path:
    """Returns ``path``, building it first if it does not exist; in use until the process ends.

    For files that are read again and again by name. See `acquire`.
    """
    path = Path(path)
    _held[path] = acquire(path, build, what=what, size=size)
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


def _build_cached(
    path: Path, build: Callable[[Path], None], cache: Path, what: str, words: str, size: int
) -> ReadLock:
    make_room(cache, size, words)
    describe(path, what)
    try:
        lock = _build(path, build)
    except BaseException:
        forget(path)
        raise
    make_room(cache)
    return lock


def _build(path: Path, build: Callable[[Path], None]) -> ReadLock:
    # We hold the lock, so temporary files of this name have no living writer here.
    for leftover in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
        remove_path(leftover)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        build(temporary)
        # In use before anyone can see it, so that nobody can evict it in between.
        lock = read_lock(temporary)
        if lock is None:
            raise FileNotFoundError(errno.ENOENT, "nothing was built", str(temporary))
        lock.path = path
        with activity(f"writing {path.parent.name} to the disk"):
            publish(temporary, path)
    except BaseException:
        remove_path(temporary)
        raise
    return lock


@contextlib.contextmanager
def _explained(cache: Path, words: str) -> Iterator[None]:
    """Puts errors of the cache's disk into words; those of other files stay what they are."""
    try:
        yield
    except OSError as error:
        place = str(error.filename or "")
        if place and not Path(place).is_relative_to(cache):
            raise
        if error.errno in _FULL:
            raise EnvironmentProblem(
                f"the cache directory {cache} has no room for {words}: {error.strerror}; "
                f"{DIRECTORY_VARIABLE} names another one, `gsfl-tune cache clear` empties this one"
            ) from error
        if place:
            raise EnvironmentProblem(
                f"the cache directory {cache} cannot be used: {error.strerror or error} "
                f"({place}); {DIRECTORY_VARIABLE} names another one"
            ) from error
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
