"""The journal file of the studies, safe against a driver that is killed at any byte."""

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

# Optuna's numbers of record types.
_CREATE_TRIAL = 4
_SET_TRIAL_PARAM = 5


class FollowedJournal(BaseJournalBackend):
    """Reads a journal file that another process writes, up to a given position.

    Args:
        path: The file.

    Attributes:
        until: Length in bytes of the part that is read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Number of records that the reader has, and their length in bytes.
        self._known = 0
        self._offset = 0
        self.until = 0

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Refuses to write: another process owns the file.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(f"{self._path}: read only")

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Reads the records that end before ``until``."""
        yield from self._from_file(log_number_from, self.until)

    def _from_file(self, log_number_from: int, until: int) -> Iterator[dict[str, Any]]:
        if log_number_from < self._known:
            # A second storage on this file starts from the beginning.
            self._known = self._offset = 0
        if until <= self._offset:
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                # A record that another process is still writing is read the next time.
                if self._offset + len(line) > until or not line.endswith(b"\n"):
                    return
                record = json.loads(line)
                self._offset += len(line)
                self._known += 1
                if self._known > log_number_from:
                    yield record


class BatchingBackend(FollowedJournal):
    """Writes a journal file as Optuna does, but can join several changes into one write.

    Optuna writes and syncs every parameter of a trial separately. With one write, a trial is in
    the file with all its parameters or not at all, and asking is several times faster. Records are
    read only once, so a change costs the same at any length of the file. No call waits for the
    disk, see `Syncer`.

    Args:
        path: The file, created if missing.
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
        """Returns the length in bytes up to the last record that this process has read."""
        return self._offset

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Collects appended records and writes them at the end, also after an exception.

        The lock is held meanwhile, so no other process writes in between.
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
                # Records of the batch that were read are not read again from the file.
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
        """Reads the file's records, then the batch's."""
        if self._batch is None or not self._taken:
            yield from self._from_file(log_number_from, os.stat(self._path).st_size)
        while self._batch is not None and self._taken < len(self._batch):
            self._taken += 1
            # In the form in which it will be read from the file.
            yield json.loads(self._batch[self._taken - 1])

    def _append(self, lines: Sequence[bytes]) -> None:
        if lines:
            with open(self._path, "ab", opener=_open_existing) as file:
                file.write(b"".join(lines))
            self._disk.begin()

    def close(self) -> None:
        """Waits until everything is on the disk; the journal stays usable.

        Raises:
            OSError: When the data could not be written.
        """
        self._disk.close()


def _open_existing(path: str, flags: int) -> int:
    """Opens without creating: below a lost mount, a new journal would hide the real one."""
    return os.open(path, flags & ~os.O_CREAT)


def end_of_proposals(path: Path, study_id: int, trial_ids: Container[int]) -> int:
    """Returns a journal's length in bytes up to the last parameter drawn for a study's trial.

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
    """Opens an Optuna journal and repairs a write that a kill interrupted.

    The caller holds the run's lock: no other process writes.

    Args:
        path: ``RUN/study.journal``; created if it is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Optuna would wait 30 s for the lock of a dead writer.
    Path(f"{path}.lock").unlink(missing_ok=True)
    _cut_torn_line(path)
    backend = BatchingBackend(path)
    return JournalStorage(backend), backend


def read_studies(path: Path) -> dict[StudyName, list[FrozenTrial]]:
    """Reads the trials of every study of a journal; a search may be writing to it."""
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
    """Reads the user attributes of a study, empty without one; writes nothing."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    for study in storage.get_all_studies():
        if study.study_name == name:
            return dict(study.user_attrs)
    return {}


def _cut_torn_line(path: Path) -> None:
    """Removes an unterminated last line, which the next append would corrupt further."""
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
