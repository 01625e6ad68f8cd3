"""Locks that die with their holder: one builder at a time, and who uses a file.

The kernel releases a lock when its holder dies, however it dies. Some network file systems have
no locks. There several processes may build the same file, which the rename that publishes it
makes harmless, and every file counts as used, so that nothing is ever evicted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

from gsfl_tune.activity import activity

log = logging.getLogger("gsfl_tune.cache")

# Who waits longer for another process is told for what.
NOTICE_SECONDS = 5.0

# EBADF: over NFS, what cannot be opened for writing cannot be locked exclusively.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)


class ReadLock:
    """Says that this process uses a file or directory: until it is closed, nothing evicts it.

    Attributes:
        path: What is used.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._close = weakref.finalize(self, os.close, descriptor)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the use; a second call does nothing."""
        self._close()

    def keep_with(self, reader: object) -> None:
        """Closes the lock when ``reader``, such as a memory map, is no longer referenced."""
        weakref.finalize(reader, self.close)


def read_lock(path: Path) -> ReadLock | None:
    """Takes a file or directory into use; None where there is none.

    Raises:
        OSError: If it is there but cannot be opened.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            _flock(descriptor, fcntl.LOCK_SH)
            # It may have been evicted between the opening and the lock.
            if _is_at(descriptor, path):
                lock = ReadLock(path, descriptor)
                descriptor = -1
                return lock
        finally:
            if descriptor >= 0:
                os.close(descriptor)


@contextlib.contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Tells whether no process uses a path; none can begin to while the block runs."""
    try:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except (IsADirectoryError, PermissionError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        yield _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) is True and _is_at(descriptor, path)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def file_lock(path: Path, waiting_for: str = "") -> Iterator[None]:
    """Holds an exclusive lock on ``path`` (created if missing), waiting for it if need be.

    Args:
        path: The lock file. Only who holds its lock may remove it.
        waiting_for: What the holder does, for the notice after `NOTICE_SECONDS`.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) is False:
                with _notice(waiting_for):
                    _flock(descriptor, fcntl.LOCK_EX)
            # Without this, two processes could hold locks on two files of one name.
            if _is_at(descriptor, path):
                yield
                return
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def try_file_lock(path: Path) -> Iterator[bool]:
    """Holds an exclusive lock on ``path`` (created if missing) if nobody else does.

    Yields:
        Whether the lock is held; False where the file system has no locks.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        yield False
        return
    try:
        yield _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) is True and _is_at(descriptor, path)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, operation: int) -> bool | None:
    """Whether the lock was granted; None where the file system has none."""
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


@contextlib.contextmanager
def _notice(waiting_for: str) -> Iterator[None]:
    text = waiting_for or "builds what is needed here"
    timer = threading.Timer(
        NOTICE_SECONDS, log.warning, (f"waiting for another process that {text}",)
    )
    timer.daemon = True
    timer.start()
    try:
        with activity(f"waiting for another process that {text}"):
            yield
    finally:
        timer.cancel()
