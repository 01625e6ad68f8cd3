"""Messages about folders and files that cannot be read or written."""

from __future__ import annotations

import errno
from pathlib import Path

from gsfl_tune.experiment.errors import UserError

# What a user can change about a place: rights, links, names, or the disk itself.
_UNREADABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EIO,
    errno.ESTALE,
)


def disk_error(error: OSError, cache: Path) -> Exception:
    """Turns disk errors that a user can solve into messages; returns others unchanged."""
    place = str(error.filename or "")
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or (place and Path(place).is_relative_to(cache)):
        return UserError(
            f"the cache directory {cache} cannot be written: {error.strerror or error}; "
            "GSFL_TUNE_CACHE names another one"
        )
    return unreadable(error)


def unreadable(error: OSError) -> Exception:
    """Turns an error about a place that cannot be read into a message; returns others unchanged."""
    if error.filename and error.errno in _UNREADABLE:
        return UserError(f"{error.filename} cannot be read: {error.strerror}")
    return error


def not_utf8(file: Path) -> UserError:
    """Returns the message about a text file that has other bytes than UTF-8, with its first line.

    Args:
        file: The file; it is read again to find the line.
    """
    content = file.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return UserError(f"{file}:{line}: found bytes that are not UTF-8, allowed text in UTF-8")
    return UserError(f"{file}: found bytes that are not UTF-8, allowed text in UTF-8")
