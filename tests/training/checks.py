"""What holds for every training, whatever it trains with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.export import Bundle, bundle_from_network, load_bundle
from gsfl_tune.models import Backbone, CannotCut
from gsfl_tune.training import Training, Workspace
from gsfl_tune.training.pricing.problems import cost_problems

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


def bundle_of(training: Training, folder: Path) -> Bundle:
    """Writes what a training has learnt as a bundle, and loads it."""
    dataset = training.workspace.dataset
    path = bundle_from_network(
        folder,
        training.trained_network(),
        training.config,
        classes=dataset.classes,
        groups=training.groups,
        side=dataset.test.side,
        metrics={},
    )
    return load_bundle(path, device="cpu")


# What no method that reads maps goes together with: old and new text, the leaf that is named, and
# words of the message. Texts have 64 pixels, one trained block and `test_efficientnet`.
NO_MAP = (
    ("blocks: 1", "blocks: 1, snr: true", "training.finetune.snr", "allowed false"),
    ("image_size: 64", "image_size: 32", "training.method", "a map of one position"),
    (
        "model: {backbone: test_efficientnet, ",
        "model: {backbone: test_vit, pooling: cls, ",
        "model.pooling",
        "needs a feature map",
    ),
)
# Nor one that needs new images of a single class.
NO_NEW_IMAGES = (
    *NO_MAP,
    ("image_size: 64", "image_size: 64, views: 2", "data.views", "new images in every step"),
    ("blocks: 1", "blocks: 1, mixup: 0.2", "training.finetune.mixup", "the one class"),
    ("blocks: 1", "blocks: 1, cutmix: 1", "training.finetune.cutmix", "the one class"),
)


def check_refused(text: str, cases: Iterable[tuple[str, str, str, str]]) -> None:
    """Checks that an experiment is sound, and that each change of its text has one problem.

    Args:
        text: The experiment.
        cases: Old and new text, the leaf that is named, and words of the message.
    """
    assert cost_problems(Experiment.parse(text)) == []
    for old, new, path, words in cases:
        assert old in text
        found = cost_problems(Experiment.parse(text.replace(old, new), file="t.yaml"))
        assert [each.path for each in found] == [path], (new, found)
        assert words in str(found[0])
