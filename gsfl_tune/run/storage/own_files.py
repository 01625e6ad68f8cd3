"""The files of a run directory that its driver publishes, and those that it may remove later."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gsfl_tune.run.layout import (
    CHECKPOINT_FILE,
    EPOCHS_FILE,
    INTERRUPT_FILE,
    JOURNAL_FILE,
    LOCK_FILE,
    RESULT_FILE,
    TEST_FILE,
    VALIDATION_FILE,
    RunDirectory,
)
from gsfl_tune.run.storage.address import HERE_FILE, RunAddress
from gsfl_tune.run.storage.backends.base import is_safe

# Written by workers, and by the driver for itself.
_NOT_PUBLISHED = {LOCK_FILE, INTERRUPT_FILE, HERE_FILE, JOURNAL_FILE, f"{JOURNAL_FILE}.lock"}
_RESULTS = (EPOCHS_FILE, RESULT_FILE, TEST_FILE, VALIDATION_FILE)


def own_files(run: RunDirectory) -> list[Path]:
    """Returns what the driver writes, besides ``results.json`` and the journal."""
    files = [path for path in run.path.iterdir() if path != run.results_file]
    for folder in (run.best, run.best_simple, run.best_training, run.evidence):
        if folder.is_dir():
            files += folder.iterdir()
    return files


def states(address: RunAddress, paths: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """Returns time and size of every file that is to be published, by the name of its object."""
    found = {}
    for path in paths:
        if path.name in _NOT_PUBLISHED or path.suffix in (".tmp", ".old"):
            continue
        name = address.name(path)
        with suppress(FileNotFoundError):
            stat = path.stat()
            # Foreign objects may have any name.
            if path.is_file() and not path.is_symlink() and is_safe(name):
                found[name] = stat.st_mtime_ns, stat.st_size
    return found


def may_go(run: RunDirectory, name: str) -> bool:
    """Returns whether a driver removes a file by itself: results that are void, an old plan.

    All else stays in a storage, whatever happens to the run directory: the run can be resumed from
    there.
    """
    folder, _, last = name.rpartition("/")
    if folder:
        return folder in (run.best_simple.name, run.evidence.name)
    removed = (
        run.results_file,
        run.plan_file,
        run.trials_parquet,
        run.workers_file,
        run.utilisation_file,
        run.tracking_file,
        run.estimate_file,
    )
    return last in {path.name for path in removed}


def is_result(path: Path) -> bool:
    """Returns whether a worker's file is one that a finished training is known by."""
    if path.name == CHECKPOINT_FILE:
        # The bundle is made of it.
        return all(path.with_name(name).exists() for name in (RESULT_FILE, TEST_FILE))
    return path.name in _RESULTS


def begins(manifest: bytes | None) -> list[Any]:
    """Returns when each driver of a run began, as its manifest says."""
    try:
        return [driver["begin"] for driver in json.loads(manifest or b"{}").get("drivers", [])]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []
