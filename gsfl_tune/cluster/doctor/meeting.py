"""Where nodes and driver meet while they are asked: in the run directory or in a storage."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gsfl_tune.cluster.doctor.findings import Finding
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.run.storage import open_storage

# Seconds until a storage counts as away.
_STORAGE_SECONDS = 20.0


@contextmanager
def meeting(run: Path | None, storage: str | None, seconds: float) -> Iterator[dict[str, Any]]:
    """Prepares the place for the nodes to meet in; nothing is left of it.

    Args:
        run: The run directory; None leaves it out.
        storage: Path or URL where the run is kept, in place of the run directory.
        seconds: The longest that an answer may take.

    Yields:
        What `gsfl_tune.cluster.doctor.probe.look` is told of it, and `of_driver`.

    Raises:
        EnvironmentProblem: When the run directory cannot be written.
    """
    if storage is None:
        with _folder(run) as folder:
            yield {"run": folder}
        return
    token = secrets.token_hex(16)
    refused: str | None = None
    try:
        opened = open_storage(storage, create=True, patience=min(seconds, _STORAGE_SECONDS))
        opened.probe()
        opened.put("preflight-token", token.encode())
    except UserError as error:
        refused = str(error)
    if refused is not None:
        # Nothing is left for the nodes to try.
        yield {"refused": refused}
        return
    try:
        yield {"storage": {"path": storage, "token": token}}
    finally:
        opened.delete("preflight-token")


def of_driver(places: Mapping[str, Any]) -> Iterator[Finding]:
    """Returns what the driver itself found at the place of the meeting."""
    if "refused" in places:
        yield Finding(
            "driver",
            f"the storage cannot be used: {places['refused']}",
            "give it the way there, credentials and endpoint (AWS_..., a role, a mounted folder)",
        )
    folder = places.get("run")
    if folder and folder["without_locks"]:
        yield Finding(
            "driver",
            f"the file system of {os.path.dirname(folder['path'])} has no locks "
            f"({folder['without_locks']})",
            "mount it with locks (Lustre: -o flock), or put --run-dir into another one",
        )


@contextmanager
def _folder(run: Path | None) -> Iterator[dict[str, str | None] | None]:
    """A folder in the run directory for all nodes to meet in; nothing is left of it.

    Raises:
        EnvironmentProblem: When it cannot be made.
    """
    if run is None:
        yield None
        return
    path = run.absolute() / f".preflight-{secrets.token_hex(6)}"
    token = secrets.token_hex(16)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        try:
            path.mkdir(parents=True)
            Path(path, "driver").write_text(token)
        except OSError as error:
            raise EnvironmentProblem(f"{run}: cannot be written: {error.strerror}") from error
        with Path(path, "lock").open("w") as lock:
            without = None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                without = error.strerror
            yield {"path": str(path), "token": token, "without_locks": without}
    finally:
        shutil.rmtree(path, ignore_errors=True)
        for folder in missing[1:]:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
