"""The processes that learn a backbone without labels together."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from gsfl_tune.data.contrast import images_without_labels
from gsfl_tune.experiment.config import Config
from gsfl_tune.search.workers.rank_pool import Meeting, RankProcesses, RankTask, team_of
from gsfl_tune.training.pretrain import Pretraining, starting_backbone
from gsfl_tune.training.process_group import Ranks
from gsfl_tune.training.workspace import Workspace, resolve_device


class RanksOfPretraining:
    """Starts the other ranks of pretrainings of one configuration.

    Args:
        processes: The ranks from 1 on.
        config: The configuration.
        workspace: Data and caches of this node.
    """

    def __init__(self, processes: RankProcesses, config: Config, workspace: Workspace) -> None:
        self._processes = processes
        self._config = config
        self._workspace = workspace

    @property
    def size(self) -> int:
        """Returns the number of ranks, including this process."""
        return self._processes.size

    def start(self, key: str, precision: str) -> Ranks:
        """Starts ranks 1.. for a pretraining; returns the group with this process as rank 0.

        Args:
            key: Name of the pretraining.
            precision: What all of them compute in, ``bf16`` or ``fp32``.

        Raises:
            RankLost: When one cannot be started.
        """
        training = self._config.training.model_copy(update={"precision": precision})
        config = self._config.model_copy(update={"training": training})

        def task(rank: int, meeting: Meeting) -> RankTask:
            return RankTask(
                rank=rank,
                size=self.size,
                meeting=meeting,
                config=config,
                seed=config.pretrain.seed,
                fit="train",
                # Rank 0 alone writes.
                directory=self._workspace.cache_dir,
                side=self._workspace.dataset.pool.side,
                cache_dir=self._workspace.cache_dir,
                threads=self._processes.threads,
                pieces=1,
                pretraining=key,
            )

        device = resolve_device(self._config.training.device)
        return self._processes.gather(task, device)

    def next_epoch(self) -> None:
        """Starts the next epoch in all processes."""
        self._processes.next_epoch()

    def watching(self) -> AbstractContextManager[None]:
        """Raises the original error of another rank, see `RankProcesses.watching`."""
        return self._processes.watching()

    def leave(self) -> None:
        """Frees the other ranks."""
        self._processes.leave()


def pretraining_team(
    config: Config, workspace: Workspace, workers: int, threads: int = 1
) -> RanksOfPretraining | None:
    """Returns the team of this process for the pretraining of a configuration.

    Args:
        config: The configuration.
        workspace: Data and caches of this node.
        workers: Number of processes; None is returned for one.
        threads: CPU threads of each.
    """
    processes = team_of(workers, threads)
    return None if processes is None else RanksOfPretraining(processes, config, workspace)


def begin_pretraining(
    config: Config, workspace: Workspace, directory: Path, key: str
) -> Pretraining:
    """Makes the pretraining of a configuration in a further rank.

    Args:
        config: The configuration.
        workspace: Data and caches of this node.
        directory: Where rank 0 writes.
        key: Name of the pretraining.
    """
    images = images_without_labels(workspace.dataset)
    device = resolve_device(config.training.device)
    return Pretraining(config, starting_backbone(config), images, directory, key=key, device=device)
