"""Files and folders that a command writes: refused before its work, not after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def refuse_file(name: str, target: Path) -> None:
    """Refuses a place where no file can be written.

    Args:
        name: What the message calls it, such as ``--sheet``.
        target: The file.

    Raises:
        UserError: If a directory is there, or its folder cannot be made or written.
    """
    from gsfl_tune.experiment import UserError

    if os.path.isdir(target):
        raise UserError(f"{name} {target}: is a directory, allowed is a file")
    if os.path.exists(target):
        _refuse_locked(name, target, target)  # it is written over, whoever owns its folder
    else:
        _refuse_folder(name, target, target.parent)


def refuse_folder(name: str, target: Path) -> None:
    """Refuses a place where no folder can be made or written, as `refuse_file` does."""
    _refuse_folder(name, target, target)


def _refuse_folder(name: str, target: Path, folder: Path) -> None:
    from gsfl_tune.experiment import UserError

    # The nearest one that is there: those below it will be made.
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not os.path.isdir(folder):
        what = "is" if folder == target else f"{folder} is"
        raise UserError(f"{name} {target}: {what} a file, allowed is a directory")
    _refuse_locked(name, target, folder)


def _refuse_locked(name: str, target: Path, place: Path) -> None:
    from gsfl_tune.experiment import UserError

    if not os.access(place, os.W_OK):
        raise UserError(
            f"{name} {target}: cannot be written (no right to write to {place.absolute()}), "
            "allowed is a place where you may write"
        )


@contextmanager
def writing(name: str, target: Path) -> Iterator[None]:
    """Turns errors of the disk, which only show when something is written, into a message.

    Raises:
        UserError: If the block raises an OSError.
    """
    from gsfl_tune.experiment import UserError

    try:
        yield
    except OSError as error:
        place = error.filename or target
        raise UserError(f"{name} {place}: cannot be written ({error.strerror or error})") from error
