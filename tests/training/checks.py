"""What holds for every training, whatever it trains with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gsfl_tune.experiment.config import Config
from gsfl_tune.models import Backbone, CannotCut
from gsfl_tune.training import Training, Workspace

from .test_training import assert_equal_states, run, state_of, without_seconds


def check_resumes(config: Config, workspace: Workspace, folder: Path, stop_after: int) -> Training:
    """Checks that a training that was stopped ends as one that was not; returns the latter."""
    whole = run(Training(config, workspace, folder / "whole"))
    first = Training(config, workspace, folder / "parts")
    for _ in range(stop_after):
        first.run_epoch()
    first.save()
    second = Training(config, workspace, folder / "parts")
    assert second.restore()
    assert second.epoch == stop_after
    run(second)
    assert_equal_states(state_of(whole), state_of(second))
    assert without_seconds(whole.log.read()) == without_seconds(second.log.read())
    return whole


def check_cached_as_whole(
    config: Config, workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checks that cached activations train what the network as a whole does."""
    cached = run(Training(config, workspace, folder / "cached"))

    def refuse(self: Backbone, image_size: int) -> None:
        raise CannotCut("no place to cut")

    monkeypatch.setattr(Backbone, "split", refuse)
    whole = run(Training(config, workspace, folder / "whole"))
    assert len(cached.log.read()) == config.training.finetune.epochs
    for ours, theirs in zip(cached.log.read(), whole.log.read(), strict=True):
        for key in ("train/loss", "train/cross_entropy", "validation/nll"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-5)
            assert np.isfinite(ours[key])
