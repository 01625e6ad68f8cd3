"""A training belongs to the process that took it last."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsfl_tune.run import OwnershipLost
from gsfl_tune.search.workers.owned_training import save, take, train_to
from gsfl_tune.search.workers.workspaces import open_workspace
from gsfl_tune.training.training import Training
from tests.search.experiments import experiment


def _training(directory: Path, cache_dir: Path) -> Training:
    config = experiment("training.head.epochs=2").defaults()
    return Training(config, open_workspace(config.data, None, cache_dir), directory)


def test_an_earlier_owner_can_write_nothing(tmp_path: Path, cache_dir: Path) -> None:
    first = _training(tmp_path / "trial", cache_dir)
    owned = take(first)
    options = {"interrupt": tmp_path / "interrupt", "save_seconds": 1e9, "last_save": 0.0}
    assert train_to(first, 1, owned, **options)[0] == "done"
    save(first, owned)
    second = _training(tmp_path / "trial", cache_dir)
    take(second)
    assert second.epoch == 1
    with pytest.raises(OwnershipLost):
        save(first, owned)


def test_a_checkpoint_that_cannot_be_read_is_left_out(tmp_path: Path, cache_dir: Path) -> None:
    training = _training(tmp_path / "trial", cache_dir)
    training.checkpoint_path.parent.mkdir(parents=True)
    training.checkpoint_path.write_bytes(b"cut off")
    take(training)
    assert training.epoch == 0
    assert not training.checkpoint_path.exists()
