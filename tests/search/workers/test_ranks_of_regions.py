"""Two processes that train with recurrent attention: its regions learn as in one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gsfl_tune.search.workers.rank_pool import RankProcesses

from .test_rank_pool import _assert_same, config_of, trained


@pytest.mark.slow
def test_two_processes_train_regions_as_one(
    team: RankProcesses, tmp_path: Path, cache_dir: Path
) -> None:
    config = config_of(
        "training.method=recurrent_attention",
        "training.recurrent_attention.steepness=1",
        "data.image_size=64",
        "training.finetune.blocks=1",
        "training.ema=0.5",
    )
    alone = trained(config, tmp_path / "alone", cache_dir, None)
    together = trained(config, tmp_path / "together", cache_dir, team)
    assert together.ranks is not None
    _assert_same(alone, together)
    # They have moved little in so few steps.
    states = [
        torch.load(training.checkpoint_path, weights_only=True) for training in (alone, together)
    ]
    for number in range(2):
        key = f"recurrent.proposals.{number}.last.weight"
        ours, theirs = (state["module"][key] for state in states)
        assert ours.abs().max() > 1e-6
        assert (ours - theirs).norm() < 0.05 * ours.norm()
    together.close()
