"""The checkpoint files of a training: the last one and earlier ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def stored(path: Path) -> list[Path]:
    """Returns the checkpoints that exist, newest first.

    Args:
        path: The last checkpoint. Earlier ones are ``checkpoint.1.pt`` and so on beside it.
    """
    older = {int(name): each for each in path.parent.glob(f"{path.stem}.*{path.suffix}")
             if (name := each.name.split(".")[1]).isdigit()}  # fmt: skip
    last = [path] if path.exists() else []
    return last + [older[number] for number in sorted(older)]


def set_aside(path: Path, keep: int) -> None:
    """Keeps the checkpoint at `path` and earlier ones before `path` is replaced.

    Args:
        path: The last checkpoint. It stays where it is.
        keep: Number of checkpoints after the next one is written.
    """
    if not path.exists():
        return
    for each in older(path)[max(0, keep - 2) :]:
        each.unlink(missing_ok=True)
    for number in range(keep - 2, 0, -1):
        if (before := _name(path, number)).exists():
            before.replace(_name(path, number + 1))
    if keep < 2:
        return
    temporary = path.with_name(f".{path.name}.aside.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        # Some file systems have no hard links.
        shutil.copyfile(path, temporary)
    temporary.replace(_name(path, 1))


def older(path: Path) -> list[Path]:
    """Returns the checkpoints before the last one, newest first."""
    return [each for each in stored(path) if each != path]


def discard(path: Path) -> None:
    """Deletes the checkpoint at `path` and earlier ones."""
    for each in stored(path):
        each.unlink(missing_ok=True)


def _name(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")
