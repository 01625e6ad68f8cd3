"""The file behind the studies: opened so that a driver killed at any byte leaves no trace."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import (
    BaseJournalBackend,
    JournalFileBackend,
    JournalFileSymlinkLock,
)
from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.run import StudyName
from gsfl_tune.search.study.background_fsync import Syncer

# Optuna's numbers of records.
_CREATE_TRIAL = 4
_SET_TRIAL_PARAM = 5


class FollowedJournal(BaseJournalBackend):
    """A journal file that somebody else writes, read up to a place that is named.

    Args:
        path: The file.

    Attributes:
        until: Bytes of the file that are read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Records that were handed to the reader, and the bytes of the file that they took.
        self._known = 0
        self._offset = 0
        self.until = 0

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """It is not ours.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(f"{self._path}: read only")

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The records that end before ``until``."""
        yield from self._from_file(log_number_from, self.until)

    def _from_file(self, log_number_from: int, until: int) -> Iterator[dict[str, Any]]:
        if log_number_from < self._known:
            # A second storage on this file begins anew.
            self._known = self._offset = 0
        if until <= self._offset:
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                # What another process has not finished to write is read the next time.
                if self._offset + len(line) > until or not line.endswith(b"\n"):
                    return
                record = json.loads(line)
                self._offset += len(line)
                self._known += 1
                if self._known > log_number_from:
                    yield record


class BatchingBackend(FollowedJournal):
    """A journal file as Optuna writes it, where several changes can become one write.

    Optuna writes (and syncs to disk) every parameter of a trial on its own. In one write, a
    trial is there with all its parameters or not at all, and asking is several times faster.
    What was read before is not read again: a change costs the same in a file of any length.
    Nobody waits for the disk: see `Syncer`.

    Args:
        path: The file, made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        path.touch()
        self._lock = JournalFileSymlinkLock(str(path))
        self._disk = Syncer(path)
        self._batch: list[bytes] | None = None
        self._taken = 0

    @property
    def end(self) -> int:
        """Bytes of the file up to the last record that this process has read."""
        return self._offset

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Collects what is appended and writes it at the end, also after an exception.

        The lock is held meanwhile: nobody else's records come in between.
        """
        if self._batch is not None:
            yield
            return
        self._lock.acquire()
        self._batch, self._taken = [], 0
        try:
            yield
        finally:
            batch, self._batch = self._batch, None
            try:
                self._append(batch)
                # What was read from the batch is not read again from the file.
                self._known += self._taken
                self._offset += sum(map(len, batch[: self._taken]))
            finally:
                self._lock.release()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends to the file, or to the batch."""
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        if self._batch is not None:
            self._batch += lines
            return
        self._lock.acquire()
        try:
            self._append(lines)
        finally:
            self._lock.release()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The file's records, then the batch's."""
        if self._batch is None or not self._taken:
            yield from self._from_file(log_number_from, os.stat(self._path).st_size)
        while self._batch is not None and self._taken < len(self._batch):
            self._taken += 1
            # As it will be read from the file.
            yield json.loads(self._batch[self._taken - 1])

    def _append(self, lines: Sequence[bytes]) -> None:
        if lines:
            with open(self._path, "ab", opener=_open_existing) as file:
                file.write(b"".join(lines))
            self._disk.begin()

    def close(self) -> None:
        """Waits until the disk has everything; the journal can be used on.

        Raises:
            OSError: When it could not be brought there.
        """
        self._disk.close()


def _open_existing(path: str, flags: int) -> int:
    """Below a mount point whose mount is gone, a new journal would hide the real one."""
    return os.open(path, flags & ~os.O_CREAT)


def end_of_proposals(path: Path, study_id: int, trial_ids: Container[int]) -> int:
    """Bytes of a journal up to the last parameter that was drawn for a trial of a study.

    Args:
        path: The journal.
        study_id: Optuna's id of the study.
        trial_ids: Optuna's ids of its trials.
    """
    end = offset = 0
    with path.open("rb") as file:
        for line in file:
            offset += len(line)
            if b'"param_name"' in line:
                record = json.loads(line)
                drawn = record["op_code"] == _SET_TRIAL_PARAM and record["trial_id"] in trial_ids
            elif b'"params"' in line:
                record = json.loads(line)
                drawn = (
                    record["op_code"] == _CREATE_TRIAL
                    and record["study_id"] == study_id
                    and record["state"] == TrialState.RUNNING
                )
            else:
                continue
            if drawn:
                end = offset
    return end


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
