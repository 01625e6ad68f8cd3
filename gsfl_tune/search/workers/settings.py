"""Settings that all trials and retrains of a run share, as a worker process gets them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from gsfl_tune.run.storage import RunAddress

# A checkpoint costs some hundredths of a second, as much as an epoch on cached features. A kill
# costs at most this time once more: training is a function of the configuration.
SECONDS_BETWEEN_SAVES = 20.0


class WorkerSettings(BaseModel):
    """Holds what a worker process must know of its run.

    Attributes:
        interrupt: File whose presence asks the worker to save and stop.
        storage: Storage of the run; default: the run directory alone.
        side: Side of the decoded squares.
        cache_dir: Root of the node's caches.
        threads: CPU threads of a process.
        workers: Number of processes that train one model together.
        shard: Whether they divide its trained parameters too, and may be on several nodes.
        save_seconds: Seconds between checkpoints.
        channel: Channel of the worker's reports, see `gsfl_tune.search.ray_tune.heartbeat`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    interrupt: Path
    storage: RunAddress | None = None
    side: int | None = None
    cache_dir: Path | None = None
    threads: int = 1
    workers: int = 1
    shard: bool = False
    save_seconds: float = SECONDS_BETWEEN_SAVES
    channel: str | None = None
