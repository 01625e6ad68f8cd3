"""The storage of a run during a search: messages, resume, and recovery of lost results."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gsfl_tune.cache.shared import use_shared_cache
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.layout import EPOCHS_FILE, JOURNAL_FILE, replicate_directory
from gsfl_tune.run.storage import MARK, DriverCopy, open_shared_cache
from gsfl_tune.search.control.interrupt import Interrupt
from gsfl_tune.search.observers.base import Watcher
from gsfl_tune.search.ray_tune.rung_epochs import rung_epochs, rungs_begun_with
from gsfl_tune.search.study.journal import read_studies
from gsfl_tune.search.study.study import Study
from gsfl_tune.search.workers.replicates import Replicates, means
from gsfl_tune.training.fingerprint import fingerprint

SHARE_VARIABLE = "GSFL_TUNE_CACHE_SHARE"
_LOOK_SECONDS = 1.0


class StorageWatcher(Watcher):
    """Reports what the storage did, and stops a search that cannot be published.

    A run that was asked to stop does not wait longer for the storage than for its trials.

    Args:
        storage: Storage of the run.
        interrupt: Interrupt of the run.
        notice: Receives messages.
    """

    def __init__(
        self, storage: DriverCopy, interrupt: Interrupt, notice: Callable[[str], None]
    ) -> None:
        self._storage = storage
        self._interrupt = interrupt
        self._notice = notice
        self._due = 0.0
        self._over = False
        # A time budget or a target ends trials, not the run: the run can wait for its storage.
        storage.storage.hopeless = lambda: interrupt.requested and interrupt.overdue

    def tick(self) -> None:
        """Checks about once a second."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + _LOOK_SECONDS
        news = self._storage.news()
        if news is not None:
            self._notice(news)
        trouble = self._storage.trouble()
        if trouble is not None and not self._over:
            self._over = True
            self._interrupt.give_up(trouble)


@contextmanager
def stored_run(
    experiment: Experiment,
    run: RunDirectory,
    notice: Callable[[str], None],
    *,
    resume: bool | None,
    address: str | None = None,
) -> Iterator[DriverCopy | None]:
    """Opens the storage of a run: restores the run before the block, and uploads it until after.

    Args:
        experiment: The experiment.
        run: The run directory; its lock is held.
        notice: Receives messages for the user.
        resume: Whether to continue the stored run; None: if there is one.
        address: Address of a Ray cluster, whose nodes share their caches; None for the one at
            RAY_ADDRESS, else for this machine alone.

    Yields:
        None where ``storage`` is not set.

    Raises:
        UserError: When the storage cannot be used, or holds a run that must not be resumed.
        EnvironmentProblem: When it does not answer.
    """
    url = experiment.defaults().storage
    if url is None:
        yield None
        return
    share = bool(address or os.environ.get("RAY_ADDRESS"))
    share &= os.environ.get(SHARE_VARIABLE, "on") != "off"
    storage = DriverCopy(url, run, experiment.name, shared_cache=share, notice=notice)
    cache = open_shared_cache(storage.address)
    use_shared_cache(cache)
    try:
        if storage.has_run and resume is False and not _untried(storage):
            raise UserError(
                f"{storage.url}: a run is there already; --resume continues it, another name or "
                "storage begins a new one"
            )
        if storage.bring_back():
            notice(f"brought back from {storage.url} what {run.path} did not have")
        yield storage
    except BaseException:
        try:
            storage.close(hurry=True)
        except EnvironmentProblem as problem:
            notice(f"{problem}\n--resume in {run.path} publishes what is missing there")
        raise
    finally:
        use_shared_cache(None)
    if cache is not None:
        cache.settle()
    storage.close()


def _untried(storage: DriverCopy) -> bool:
    """Returns whether the run in a storage was begun and no trial was handed out."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / JOURNAL_FILE
        journal.write_bytes(storage.journal())
        try:
            studies = read_studies(journal)
        except (ValueError, KeyError):
            return False
    states = {trial.state.name for trials in studies.values() for trial in trials}
    return states <= {"WAITING"}


def tell_finished(
    study: Study,
    experiment: Experiment,
    run: RunDirectory,
    storage: DriverCopy,
    rungs_of: Callable[[Config], list[int]] | None = None,
) -> list[int]:
    """Adds trials to a study whose end is in the storage but not in the journal.

    The journal is published about once a second, a trial's epochs before they are reported. So a
    driver that died with its disk may have known of ends, and of trials, that the published journal
    lacks. Such trials are created again, under their numbers. Of a trial with several trainings,
    those are told after which another one began.

    Args:
        study: The study, newly opened.
        experiment: The experiment.
        run: The run directory.
        storage: Storage of the run.
        rungs_of: Epochs of a configuration's rungs; default: those of its timeline.

    Returns:
        Numbers of the trials; they are COMPLETE now.

    Raises:
        EnvironmentProblem: When the storage does not answer.
    """
    told: list[int] = []
    _recreate(study, experiment, run, storage)
    if study.goals.others:
        # Epochs do not contain what is measured on the model: such a trial is handed out again and
        # measured at its end.
        return told
    rungs_of = rungs_of or rung_epochs(experiment, None)
    replicates = Replicates.of(experiment.defaults().search)
    for number in study.running():
        try:
            trial = study.trial(number)
            config = experiment.configure(trial.params)
        except (UserError, ValueError, KeyError):
            # A driver died in the middle of a write, or the combination is refused.
            continue
        directory = run.trial(study.name, number)
        epochs = rungs_begun_with(trial, rungs_of(config))
        directories = [replicate_directory(directory, n) for n in range(replicates.count)]
        logs = _logs(storage, directories, fingerprint(config), study.metric)
        ended = [log for log in logs if len(log) >= epochs[-1]]
        whole = len(ended) == replicates.count
        if not whole and len(logs) == len(ended):
            # What the scheduler would have said at the end of the last one is not known.
            ended = ended[:-1]
        _tell_trainings(study, number, ended, epochs, noted=replicates.count > 1)
        for each in directories[: len(ended)]:
            storage.want(each / EPOCHS_FILE)
        if whole:
            study.complete(
                number, study.rungs(study.trial(number))[replicates.last_rung(len(epochs) - 1)]
            )
            told.append(number)
    return told


def _logs(storage: DriverCopy, directories: list[Path], key: str, metric: str) -> list[list[float]]:
    """Returns the objective by epoch of each training of a trial that has begun and is finite."""
    logs: list[list[float]] = []
    for directory in directories:
        values = _values(storage.epochs(directory, key), metric)
        if not values or not all(map(math.isfinite, values)):
            break
        logs.append(values)
    return logs


def _tell_trainings(
    study: Study, number: int, logs: list[list[float]], epochs: list[int], *, noted: bool
) -> None:
    """Reports the rungs of a trial's trainings as its worker would have.

    Args:
        study: The study.
        number: Trial number.
        logs: The objective by epoch of each training that has ended.
        epochs: Epoch of each rung of one training.
        noted: Whether trials have several trainings, whose own numbers are kept.
    """
    rows: list[dict[str, float]] = []
    for log in logs:
        if not rows:
            for k, epoch in enumerate(epochs[:-1]):
                study.report(number, k, log[epoch - 1])
        k = len(epochs) - 1 + len(rows)
        rows.append({study.metric: log[epochs[-1] - 1]})
        if noted:
            study.note_replicate(number, k, rows[-1])
        study.report(number, k, means(rows)[study.metric])


def _recreate(study: Study, experiment: Experiment, run: RunDirectory, storage: DriverCopy) -> None:
    """Creates trials that workers have begun and the study does not have."""
    lost = {
        int(path.parent.name): path.parent
        for path in storage.copies(run.trials(study.name), MARK)
        if path.parent.name.isdecimal() and int(path.parent.name) >= len(study.trials())
    }
    for number in range(len(study.trials()), max(lost, default=-1) + 1):
        try:
            found = storage.params(lost[number]) if number in lost else None
            if found is not None and found[0] == fingerprint(experiment.configure(found[1])):
                study.recreate(found[1])
        except (UserError, ValueError, KeyError) as error:
            if isinstance(error, EnvironmentProblem):
                raise
        while len(study.trials()) <= number:
            # Its worker had not begun, or it belongs to another study: a new trial replaces it.
            if study.ask() is None:
                return


def _values(data: bytes | None, metric: str) -> list[float]:
    """Returns the objective after every epoch, empty for an invalid log."""
    try:
        records = [json.loads(line) for line in (data or b"").splitlines()]
        return [float(record[metric]) for record in records]
    except (ValueError, KeyError, TypeError):
        return []
