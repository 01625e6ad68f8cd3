"""Retention of trial checkpoints: which stay on disk, and how much space they may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gsfl_tune.experiment import Experiment, ExperimentError, Problem
from gsfl_tune.experiment.search_config import SearchConfig
from gsfl_tune.experiment.units import byte_count, size_text
from gsfl_tune.run import RunDirectory, StudyName
from gsfl_tune.run.checkpoints import discard, older, stored
from gsfl_tune.run.layout import CHECKPOINT_FILE, replicate_directories, replicate_directory
from gsfl_tune.run.storage import DriverCopy
from gsfl_tune.search.observers.base import Watcher
from gsfl_tune.search.study.goals import violation
from gsfl_tune.search.workers.replicates import rows_of
from gsfl_tune.training.pricing.cost import checkpoint_bytes

if TYPE_CHECKING:
    from gsfl_tune.search.study.study import Study

SECONDS_BETWEEN_LOOKS = 2.0


class CheckpointKeeper(Watcher):
    """Keeps the checkpoints of running and paused trials and of the best finished ones only.

    Args:
        run: The run.
        study: The study that runs.
        keep: Finished trials whose checkpoints are kept.
        budget: Bytes that all checkpoints of the run may take; None for no limit. Paused trials
            end first, then the worst finished ones lose theirs.
        on_full: Called when running trials exceed the budget.
        discard: Called once for every checkpoint of a trial that is no longer needed, so that
            copies can be deleted.
        copies: Returns the existing copies of checkpoints; called once, at the beginning.
        unseen: Bytes to assume for a running trial whose checkpoints are not visible, as on a
            node with its own directory.
        on_dropped: Called with a paused trial that has ended for want of space. It must tell all
            watchers, this one too; default: this one alone.
    """

    def __init__(
        self,
        run: RunDirectory,
        study: Study,
        keep: int,
        budget: int | None = None,
        on_full: Callable[[str], None] = lambda reason: None,
        discard: Callable[[Path], None] = lambda path: None,
        copies: Callable[[], Iterable[Path]] = tuple,
        unseen: int = 0,
        on_dropped: Callable[[int], None] | None = None,
    ) -> None:
        self._run = run
        self._study = study
        self._keep = keep
        self._budget = budget
        self._on_full = on_full
        self._discard = discard
        self._copies = copies
        self._unseen = unseen
        self._on_dropped = on_dropped or self.ended
        self._sign = -1.0 if study.direction == "maximize" else 1.0
        # (score with smaller is better, number), the best first.
        self._kept: list[tuple[float, float, int]] = []
        self._others: list[Path] = []
        self._looked = 0.0
        self._tidying = False

    def begin(self, study: Study, budget: int | None, slots: int) -> None:
        """Deletes what an earlier driver had no time to delete."""
        self._tidying = True
        for trial in self._study.trials():
            if trial.state.is_finished():
                self.ended(trial.number)
        self._tidying = False
        # An earlier driver may have died after deleting a checkpoint but before deleting its copy.
        kept = {self._directory(number) / CHECKPOINT_FILE for *_, number in self._kept}
        running = [self._directory(number) for number in self._study.running()]
        for path in {*self._copies()} - kept:
            if not any(path.is_relative_to(each) for each in running):
                self._discard(path)
        for number in self._study.running():
            for torn in self._directory(number).rglob(".checkpoint.*.tmp"):
                torn.unlink(missing_ok=True)
        if self._budget is not None:
            # Checkpoints of the other study, and of retrains that an earlier driver began.
            own = self._run.trials(self._study.name)
            found = self._run.path.rglob("checkpoint*.pt")
            self._others = [path for path in found if own not in path.parents]

    def ended(self, number: int) -> None:
        """Keeps or deletes the checkpoint of a trial that ended."""
        trial = self._study.trial(number)
        if trial.state.name == "COMPLETE":
            value = self._sign * (self._study.value(trial) or 0.0)
            self._kept = sorted({*self._kept, (violation(trial), value, number)})
            first, *further = replicate_directories(self._directory(number))
            with suppress(OSError):
                for path in older(first / CHECKPOINT_FILE):
                    path.unlink(missing_ok=True)
                for each in further:
                    discard(each / CHECKPOINT_FILE)
            self._discard_copies(number, further=True)
            while len(self._kept) > self._keep:
                self._drop_worst()
        else:
            # No training will continue from it.
            self._delete(number)

    def tick(self) -> None:
        """Called some times a second."""
        if time.monotonic() - self._looked >= SECONDS_BETWEEN_LOOKS:
            self._look()

    def used(self) -> int:
        """Returns the bytes that the checkpoints of the run take."""
        numbers = [*self._study.running(), *(number for *_, number in self._kept)]
        own = [
            [
                each
                for part in replicate_directories(self._directory(number))
                for each in stored(part / CHECKPOINT_FILE)
            ]
            for number in numbers
        ]
        seen = sum(sum(map(_size, paths)) or self._unseen for paths in own)
        return seen + sum(map(_size, self._others))

    def _look(self) -> None:
        self._looked = time.monotonic()
        if self._budget is None:
            return
        while (used := self.used()) > self._budget and self._drop_paused():
            pass
        while (used := self.used()) > self._budget and self._kept:
            self._drop_worst()
        if used > self._budget:
            self._on_full(
                f"checkpoints of running trials take {size_text(used)}, search.disk_budget allows "
                f"{size_text(self._budget)}: allow more, or fewer trials at once "
                "(search.max_concurrent)"
            )

    def _drop_paused(self) -> bool:
        """Ends the worst paused trial; returns whether there was one."""
        number = self._study.worst_paused()
        if number is not None:
            self._study.prune_paused(number)
            self._on_dropped(number)
        return number is not None

    def _drop_worst(self) -> None:
        *_, number = self._kept.pop()
        self._delete(number)

    def _delete(self, number: int) -> None:
        path = self._directory(number) / CHECKPOINT_FILE
        # A checkpoint that cannot be deleted only costs space.
        with suppress(OSError):
            for each in replicate_directories(path.parent):
                discard(each / CHECKPOINT_FILE)
        self._discard_copies(number)

    def _discard_copies(self, number: int, *, further: bool = False) -> None:
        """Discards the copies of the checkpoints that a trial may have left.

        Args:
            number: Trial number.
            further: Whether that of its first training is kept.
        """
        # A resume of ten thousand trials must not query the storage for each: see `begin`.
        if self._tidying:
            return
        # Its workers have deleted most of them; one that was killed, or paused the trial, has not.
        ended = len(rows_of(self._study.trial(number)))
        for training in range(int(further), ended + 1):
            directory = replicate_directory(self._directory(number), training)
            self._discard(directory / CHECKPOINT_FILE)

    def _directory(self, number: int) -> Path:
        return self._run.trial(self._study.name, number)


def refuse_small_disk(experiment: Experiment, concurrent: int) -> None:
    """Refuses a ``search.disk_budget`` that cannot hold what a search needs at once.

    Checkpoints of finished trials do not count: they are deleted where space is needed.

    Args:
        experiment: The experiment.
        concurrent: Number of parallel trials.

    Raises:
        ExperimentError: With the space needed and the reason.
    """
    search = experiment.defaults().search
    if search.disk_budget is None:
        return
    largest, retrains = checkpoint_bytes(experiment), _retrains(search)
    # A trial with several trainings keeps those of the first one and of the one that runs.
    kept = search.last_checkpoints * min(2, search.replicates)
    needed = largest * (kept * concurrent + retrains)
    if needed > byte_count(search.disk_budget):
        file, line = experiment.locate("search.disk_budget")
        message = (
            f"found {search.disk_budget}, allowed at least {size_text(needed)}: checkpoints of up "
            f"to {size_text(largest)}, {kept} (search.last_checkpoints) for each of {concurrent} "
            f"trial(s) at once (search.max_concurrent), and {retrains} final models "
            "(search.final_seeds)"
        )
        raise ExperimentError([Problem(file, line, "search.disk_budget", message)])


def make_room(run: RunDirectory, search: SearchConfig, storage: DriverCopy | None = None) -> None:
    """Deletes checkpoints of finished trials, the oldest first, until retrains have space.

    Args:
        run: The run; none of its trials is running.
        search: The section `search`.
        storage: Holds copies of the checkpoints.

    Raises:
        EnvironmentProblem: When the storage does not answer.
    """
    if search.disk_budget is None:
        return
    names: tuple[StudyName, ...] = ("search", "control")
    found = {
        path: _size(path) for name in names for path in run.trials(name).rglob(CHECKPOINT_FILE)
    }
    ages = {path: path.stat().st_mtime for path in found}
    if storage is not None:
        for name in names:
            found |= storage.copies(run.trials(name), CHECKPOINT_FILE)
    # Checkpoints that only the storage has, have no age here and go first.
    kept = sorted(found, key=lambda path: ages.get(path, 0.0))
    # The finalists are among them: their retrains take as much space.
    coming = max(found.values(), default=0) * _retrains(search)
    while kept and sum(found[path] for path in kept) + coming > byte_count(search.disk_budget):
        path = kept.pop(0)
        path.unlink(missing_ok=True)
        if storage is not None:
            storage.discard(path)


def _retrains(search: SearchConfig) -> int:
    return search.final_seeds * (1 if search.control == "off" else 2)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
