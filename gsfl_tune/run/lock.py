"""The lock of a run directory, held by the process that writes to it."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run.layout import RunDirectory

# `holder` has the lock for a moment; nobody else holds it so briefly.
_TRIES = 5
_BETWEEN_TRIES = 0.05
# What a user can change about a place; a full disk is no fault of the command.
_UNWRITABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)
_BUSY = "another search is using this run directory"


@contextmanager
def run_lock(run: RunDirectory, busy: str = _BUSY) -> Iterator[None]:
    """Locks a run directory against a second driver; the lock ends with the process.

    Args:
        run: The directory.
        busy: What the error says of a directory that another driver has.

    Raises:
        UserError: When another process holds the lock, it cannot be made, or the file system has
            no locks.
    """
    handle = _open(run)
    try:
        try:
            _take(handle)
        except (BlockingIOError, PermissionError) as error:
            owner = _owner(handle)
            raise UserError(
                f"{run.path}: {busy}" + (f" (process {owner})" if owner else "")
            ) from error
        except OSError as error:
            raise UserError(
                f"{run.path}: its file system has no locks ({error.strerror}); put the run "
                "directory into another one (`storage` keeps a copy of the run anywhere), or mount "
                "it with locks (Lustre: -o flock)"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def holder(run: RunDirectory) -> str | None:
    """Returns the process that holds the lock of a run, or None; writes nothing.

    Returns:
        Its number on its own machine, empty if it is not known. None where nobody holds the lock,
        or where the file system has no locks.
    """
    try:
        handle = os.open(run.lock_file, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(handle)
    except OSError:
        return None
    finally:
        os.close(handle)
    return None


def _open(run: RunDirectory) -> int:
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        return os.open(run.lock_file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise UserError(
            f"{error.filename or run.lock_file}: cannot be written ({error.strerror}), allowed is "
            "a run directory in which this process may make and write the file "
            f"{run.lock_file.name}"
        ) from error


def _take(handle: int) -> None:
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not left:
                raise
            time.sleep(_BETWEEN_TRIES)


def _owner(handle: int) -> str:
    return os.pread(handle, 32, 0).decode(errors="replace").strip()
