"""The file behind the studies: opened so that a driver killed at any byte leaves no trace."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from gsfl_tune.run import StudyName


def open_journal(path: Path) -> JournalStorage:
    """Opens an Optuna journal, mending what a kill in the middle of a write left.

    The caller holds the run's lock: nobody else writes.

    Args:
        path: ``RUN/study.journal``; created if it is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Optuna would wait 30 s for the lock of a writer that is dead.
    Path(f"{path}.lock").unlink(missing_ok=True)
    _cut_torn_line(path)
    return JournalStorage(JournalFileBackend(str(path)))


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
