"""What the study and the retrains of one run share in the driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gsfl_tune.experiment.config import Config
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.storage import DriverCopy
from gsfl_tune.search.control.interrupt import Interrupt
from gsfl_tune.search.costs.trial_costs import TrialCosts
from gsfl_tune.search.observers.base import Watcher
from gsfl_tune.search.ray_tune.resources import Resources
from gsfl_tune.search.workers.settings import SECONDS_BETWEEN_SAVES, WorkerSettings


@dataclass(frozen=True)
class RunContext:
    """Holds one run as its driver sees it.

    Attributes:
        run: The run directory.
        resources: Resources of one trial, and how many fit.
        interrupt: Interrupt of the whole run.
        side: Side of the decoded squares, the same for all trials.
        cache_dir: Root of the nodes' caches.
        watchers: Receivers of every change, called in this thread.
        save_seconds: Seconds between checkpoints of a training.
        storage: Storage of the run; default: the run directory alone.
        costs: Prices trainings, and learns what they take.
    """

    run: RunDirectory
    resources: Resources
    interrupt: Interrupt
    side: int | None = None
    cache_dir: Path | None = None
    watchers: Sequence[Watcher] = ()
    save_seconds: float = SECONDS_BETWEEN_SAVES
    storage: DriverCopy | None = None
    costs: TrialCosts | None = None

    def at_most(self, count: int) -> RunContext:
        """Returns the same context with resources for no more than `count` trainings at once."""
        return replace(self, resources=self.resources.at_most(count))

    def worker_settings(self, channel: str | None, config: Config) -> WorkerSettings:
        """Returns the settings that a worker process of this run gets.

        Args:
            channel: Channel of its reports.
            config: What it trains.
        """
        resources = self.resources.of(config.model.backbone)
        return WorkerSettings(
            interrupt=self.run.interrupt_file,
            storage=self.storage.address if self.storage is not None else None,
            side=self.side,
            cache_dir=self.cache_dir,
            threads=resources.threads,
            workers=resources.workers,
            shard=resources.shard,
            save_seconds=self.save_seconds,
            channel=channel,
        )
