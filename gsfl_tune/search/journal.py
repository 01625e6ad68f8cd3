"""The file behind the studies: opened so that a driver killed at any byte leaves no trace."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial

from gsfl_tune.run import StudyName


class BatchingBackend(JournalFileBackend):
    """Optuna's journal file, where several changes can become one write.

    Optuna writes (and syncs to disk) every parameter of a trial on its own. In one write, a
    trial is there with all its parameters or not at all, and asking is several times faster.
    """

    def __init__(self, path: Path) -> None:
        lock = JournalFileSymlinkLock(str(path))
        super().__init__(str(path), lock_obj=lock)
        self._writers_lock = lock
        self._batch: list[dict[str, Any]] | None = None
        self._in_file: int | None = None

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Collects what is appended and writes it at the end, also after an exception.

        The lock is held meanwhile: nobody else's records come in between.
        """
        if self._batch is not None:
            yield
            return
        self._writers_lock.acquire()
        self._batch, self._in_file = [], None
        try:
            yield
        finally:
            logs, self._batch = self._batch, None
            try:
                self._write(logs)
            finally:
                self._writers_lock.release()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends to the file, or to the batch."""
        if self._batch is None:
            super().append_logs(logs)
        else:
            # As they will be read from the file.
            self._batch += [json.loads(json.dumps(log)) for log in logs]

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The file's records, then the batch's."""
        if self._batch is None:
            yield from super().read_logs(log_number_from)
            return
        if self._in_file is None:
            count = log_number_from
            for log in super().read_logs(log_number_from):
                count += 1
                yield log
            self._in_file = count
        yield from self._batch[max(0, log_number_from - self._in_file) :]

    def _write(self, logs: list[dict[str, Any]]) -> None:
        if logs:
            data = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
            with open(self._file_path, "ab") as file:
                file.write(data.encode())
                file.flush()
                os.fsync(file.fileno())


def open_journal(path: Path) -> tuple[JournalStorage, BatchingBackend]:
    """Opens an Optuna journal, mending what a kill in the middle of a write left.

    The caller holds the run's lock: nobody else writes.

    Args:
        path: ``RUN/study.journal``; created if it is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Optuna would wait 30 s for the lock of a writer that is dead.
    Path(f"{path}.lock").unlink(missing_ok=True)
    _cut_torn_line(path)
    backend = BatchingBackend(path)
    return JournalStorage(backend), backend


def read_studies(path: Path) -> dict[StudyName, list[FrozenTrial]]:
    """The trials of every study of a journal; may be called while a search writes to it."""
    if not path.exists():
        return {}
    storage = JournalStorage(JournalFileBackend(str(path)))
    known: tuple[StudyName, ...] = ("search", "control")
    names = {study.study_name for study in storage.get_all_studies()}
    return {
        name: optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
        for name in known
        if name in names
    }


def study_attributes(path: Path, name: StudyName) -> dict[str, Any]:
    """User attributes of a study of a journal, empty if there is none; writes nothing."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    for study in storage.get_all_studies():
        if study.study_name == name:
            return dict(study.user_attrs)
    return {}


def _cut_torn_line(path: Path) -> None:
    """Removes a last line without its end; the next append would make one broken line of two."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        end = data.rfind(b"\n") + 1
        if end < len(data):
            file.truncate(end)
            return
        last = data[data.rfind(b"\n", 0, max(0, end - 1)) + 1 : end]
        try:
            json.loads(last or b"0")
        except ValueError:
            file.truncate(end - len(last))
