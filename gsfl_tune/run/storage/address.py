"""The address of a run, as workers on other machines receive it."""

from __future__ import annotations

import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run.atomic import write_text
from gsfl_tune.run.layout import RunDirectory
from gsfl_tune.run.storage.backends.base import is_safe

HERE_FILE = ".here"
INTERRUPT = "interrupt"


class RunAddress(BaseModel):
    """Locates a run in a storage.

    Attributes:
        url: URL of the run, not of its storage.
        run: The driver's run directory.
        token: Text that the driver wrote there. A process that reads the same text sees the same
            directory.
        patience: Seconds of failed attempts after which an operation fails.
        cache: URL where nodes share their caches; None if they do not share.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    run: Path
    token: str
    patience: float
    cache: str | None = None

    @classmethod
    def mark(
        cls, url: str, run: RunDirectory, patience: float, cache: str | None = None
    ) -> RunAddress:
        """Marks the driver's run directory with a token and returns its address.

        Raises:
            OSError: When it cannot be written.
        """
        token = secrets.token_hex(8)
        write_text(_mark(run.path), token)
        return cls(url=url, run=run.path, token=token, patience=patience, cache=cache)

    @property
    def is_here(self) -> bool:
        """Returns whether this process sees the driver's run directory."""
        try:
            return _mark(self.run).read_text() == self.token
        except OSError:
            return False

    def name(self, path: Path) -> str:
        """Returns the object name of a file."""
        return path.relative_to(self.run).as_posix()


def run_url(storage: str, name: str) -> str:
    """Returns the URL of a run in a storage; a path becomes absolute."""
    if "://" not in storage:
        return str(Path(storage).expanduser().absolute() / name)
    base, mark, query = storage.partition("?")
    return f"{base.rstrip('/')}/{name}{mark}{query}"


def local_path(root: Path, name: str) -> Path:
    """Returns the local path of a storage's object.

    Raises:
        UserError: If it would be outside of `root`, also through a link.
    """
    path = root / name
    inside = is_safe(name) and path.parent.resolve().is_relative_to(root.resolve())
    if not inside or path.is_symlink():
        raise UserError(f"{root}: {name} would be written outside of the run directory")
    return path


def _mark(run: Path) -> Path:
    return run / HERE_FILE
