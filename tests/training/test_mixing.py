"""Mixing and further transforms through real trainings."""

from __future__ import annotations

import pytest
import torch

from gsfl_tune.data import Batch, Targets
from gsfl_tune.training import Training

from .checks import check_cached_as_whole, check_resumes
from .conftest import tiny_config
from .test_training import run, state_of

FINETUNE = {"epochs": 2, "batch_size": 24, "blocks": 2}
MIXED = ("mixup", "cutmix", "fourier", "adain")
CASES = {
    "head": {"training": {"head": {"epochs": 3, "batch_size": 16, "mixup": 0.4}}},
    "mixup": {"training": {"head": {"epochs": 1}, "finetune": {**FINETUNE, "mixup": 0.3}}},
    "fourier": {"training": {"head": {"epochs": 1}, "finetune": {**FINETUNE, "fourier": 0.5}}},
    "adain": {"training": {"head": {"epochs": 1}, "finetune": {**FINETUNE, "adain": 0.5}}},
    "rand-degrade": {
        "data": {"augment": {"policy": "rand", "degrade": 0.5}},
        "training": {"head": {"epochs": 1}, "finetune": FINETUNE},
    },
    "cutmix-views": {
        "data": {"views": 2},
        "training": {"head": {"epochs": 0}, "finetune": {**FINETUNE, "cutmix": 1.0}},
    },
    "transforms": {
        "data": {"augment": {"policy": "trivial", "erasing": 0.5}},
        "training": {"head": {"epochs": 1}, "finetune": FINETUNE},
    },
    "transforms-views": {
        "data": {"views": 2, "augment": {"policy": "trivial", "erasing": 0.5}},
        "training": {"head": {"epochs": 2}},
    },
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_resuming_equals_never_having_stopped(workspace, tmp_path, changes):
    check_resumes(tiny_config(**changes), workspace, tmp_path, stop_after=1)


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_it_changes_what_is_trained(workspace, tmp_path, changes):
    trained = run(Training(tiny_config(**changes), workspace, tmp_path / "on"))
    plain = {
        "data": {"views": changes.get("data", {}).get("views", 0)},
        "training": {
            stage: {k: v for k, v in settings.items() if k not in MIXED}
            for stage, settings in changes["training"].items()
        },
    }
    without = run(Training(tiny_config(**plain), workspace, tmp_path / "off"))
    names = [name for name in state_of(trained)["module"] if name.endswith("classifier.weight")]
    assert names
    for name in names:
        assert not torch.equal(state_of(trained)["module"][name], state_of(without)["module"][name])


def test_a_mixed_batch_has_the_mean_of_both_losses(workspace, tmp_path):
    config = tiny_config(model={"dropout": 0.0}, training={"head": {"epochs": 1, "mixup": 1.0}})
    training = Training(config, workspace, tmp_path)
    stage = training._current()
    f = torch.nn.functional.normalize(torch.randn(8, training.head.feature_dim), dim=1)
    y, others = torch.arange(8) % 3, torch.arange(8) % 5
    output = stage.module(f)
    mixed = stage._step(Batch((f,), Targets(y, others=others, kept=0.7), torch.arange(8)))
    parts = [
        training.loss(output, f, each, training.head.classifier.weight) for each in (y, others)
    ]
    one, other = (float(part.total.detach()) for part in parts)
    assert float(mixed.total.detach()) == pytest.approx(0.7 * one + 0.3 * other, rel=1e-6)


def test_centres_note_each_mixed_image_once(workspace, tmp_path):
    config = tiny_config(training={"head": {"epochs": 1, "mixup": 1.0}})
    training = Training(config, workspace, tmp_path)
    stage = training._current()
    f = torch.nn.functional.normalize(torch.randn(8, training.head.feature_dim), dim=1)
    y, others = torch.full((8,), 2), torch.full((8,), 4)
    stage._step(Batch((f,), Targets(y, others=others, kept=0.7), torch.arange(8)))
    noted = training.centers.pending_count
    assert noted[2] == 8
    assert noted.sum() == 8


def test_the_cache_trains_as_the_whole_network_does(workspace, tmp_path, monkeypatch):
    settings = tiny_config(
        data={"views": 2, "augment": {"policy": "trivial", "erasing": 0.5}},
        training={
            "head": {"epochs": 0},
            "finetune": {**FINETUNE, "optimizer": "sgd", "learning_rate": 1e-3},
        },
    )
    check_cached_as_whole(settings, workspace, tmp_path, monkeypatch)
