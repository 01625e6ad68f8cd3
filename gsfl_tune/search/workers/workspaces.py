"""The data of a run in a worker process, opened once for all of its trials."""

from __future__ import annotations

from pathlib import Path

from gsfl_tune.cache.shared import use_shared_cache
from gsfl_tune.data import square_side
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.run.storage import RunAddress, open_shared_cache
from gsfl_tune.training.workspace import Workspace

_workspaces: dict[str, Workspace] = {}


def open_workspace(
    config: DataConfig, side: int | None, cache_dir: Path | None, storage: RunAddress | None = None
) -> Workspace:
    """Opens the data of a configuration, kept for the next trial of this process.

    Args:
        config: The section `data`.
        side: Side of the decoded squares.
        cache_dir: Root of the node's caches.
        storage: Storage of the run; nodes may share their caches there.

    Raises:
        EnvironmentProblem: When the data cannot be used. All trials of a run use the same
            data, and it was valid when the run began: it has changed since.
    """
    side = side or square_side(config.largest_image_size)
    # Values that may differ between trials are read from their own configurations at every use.
    shared = config.model_dump_json(exclude={"augment", "image_size", "eval_image_size"})
    key = f"{shared}|{side}|{cache_dir}"
    use_shared_cache(open_shared_cache(storage))
    if key not in _workspaces:
        # Only one is kept, as its backbone may be large.
        _workspaces.clear()
        try:
            _workspaces[key] = Workspace.open(config, side=side, cache_dir=cache_dir)
        except (UserError, OSError) as error:
            raise EnvironmentProblem(str(error)) from error
    return _workspaces[key]


def shared() -> object:
    """Returns what the trials of this process keep for each other."""
    return _workspaces


def free_devices() -> None:
    """Gives back the GPU memory that the features of this process take."""
    for workspace in _workspaces.values():
        workspace.free_device()
