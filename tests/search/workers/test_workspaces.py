"""The data of a run are opened once in a process, whatever its trials vary."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gsfl_tune.experiment.errors import EnvironmentProblem
from gsfl_tune.search.workers.workspaces import free_devices, open_workspace, shared
from tests.search.experiments import experiment


def test_trials_that_differ_in_augmentation_and_size_share_a_workspace(cache_dir: Path) -> None:
    data = experiment().defaults().data
    first = open_workspace(data, 40, cache_dir)
    augment = data.augment.model_copy(update={"flip": not data.augment.flip})
    other = data.model_copy(update={"augment": augment, "image_size": 24})
    assert open_workspace(other, 40, cache_dir) is first
    # Without a side, the size decides how images are decoded.
    assert open_workspace(other, None, cache_dir).dataset.pool.side < 40
    assert open_workspace(data, 40, cache_dir) is not first


def test_only_the_last_one_is_kept(cache_dir: Path, tmp_path: Path) -> None:
    data = experiment().defaults().data
    first = open_workspace(data, 40, cache_dir)
    second = open_workspace(data, 40, tmp_path)
    assert second is not first
    assert second.cache_dir != first.cache_dir
    assert list(shared().values()) == [second]  # type: ignore[attr-defined]


def test_data_that_are_gone_are_the_machines_fault(cache_dir: Path, tmp_path: Path) -> None:
    data = experiment().defaults().data
    other = data.model_copy(update={"source": "folder", "path": str(tmp_path / "gone")})
    for _ in range(2):  # nothing is kept of what could not be opened
        with pytest.raises(EnvironmentProblem, match="gone"):
            open_workspace(other, 40, cache_dir)
    assert open_workspace(data, 40, cache_dir).dataset.class_count > 1


def test_what_trials_keep_on_a_device_is_given_back_and_made_again(cache_dir: Path) -> None:
    config = experiment().defaults()
    workspace = open_workspace(config.data, 32, cache_dir)
    device = torch.device("cpu")
    first = workspace.table(config, "features", device)
    assert workspace.table(config, "features", device) is first
    free_devices()
    assert workspace.table(config, "features", device) is not first
    # The data stay open.
    assert open_workspace(config.data, 32, cache_dir) is workspace
