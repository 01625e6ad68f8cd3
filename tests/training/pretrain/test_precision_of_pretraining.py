"""What ``training.precision: auto`` is in a pretraining on a CPU."""

from __future__ import annotations

import pytest
import torch

from gsfl_tune.data.contrast import images_without_labels
from gsfl_tune.training import Workspace, precision
from gsfl_tune.training.pretrain import Pretraining, starting_backbone, with_precision
from tests.training.pretrain.conftest import config_of
from tests.training.pretrain.test_pretraining import pretrained

CPU = torch.device("cpu")
FASTER, SLOWER = {"fp32": 2.0, "bf16": 1.0}, {"fp32": 1.0, "bf16": 1.0}


def auto(**changes):
    config = config_of(**changes)
    training = config.training.model_copy(update={"precision": "auto"})
    return config.model_copy(update={"training": training})


@pytest.fixture
def measured(monkeypatch):
    """Seconds that a measurement finds, and what was measured."""
    found = {"seconds": FASTER, "asked": []}

    def time_both(backbone, blocks, size):
        found["asked"].append((backbone.name, blocks, size))
        return found["seconds"]

    monkeypatch.setattr(precision, "has_bf16_units", lambda: True)
    monkeypatch.setattr(precision, "_time_both", time_both)
    return found


def decided(config, workspace, cache_dir):
    images = images_without_labels(workspace.dataset)
    found = with_precision(config, images, starting_backbone(config), CPU, cache_dir)
    return found.training.precision


def test_it_is_measured_with_all_blocks_at_the_size_of_the_views(workspace, tmp_path, measured):
    assert decided(auto(image_size=48), workspace, tmp_path) == "bf16"
    assert measured["asked"] == [("test_resnet", "all", 48)]
    measured["seconds"] = SLOWER
    # Kept: another process of this node reads it.
    assert decided(auto(image_size=48), workspace, tmp_path) == "bf16"
    assert decided(auto(), workspace, tmp_path) == "fp32"
    assert decided(config_of(), workspace, tmp_path) == "fp32"
    assert len(measured["asked"]) == 2


def test_the_real_measurement_decides(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "has_bf16_units", lambda: True)
    assert decided(auto(), workspace, tmp_path) in ("fp32", "bf16")
    assert len(list((tmp_path / "precision").glob("*.json"))) == 1


def test_a_cpu_without_bf16_units_computes_in_float32(workspace, tmp_path, measured, monkeypatch):
    monkeypatch.setattr(precision, "has_bf16_units", lambda: False)
    assert decided(auto(), workspace, tmp_path) == "fp32"
    assert measured["asked"] == []


def test_nodes_that_share_caches_compute_alike(workspace, tmp_path, measured, monkeypatch):
    monkeypatch.setattr("gsfl_tune.training.pretrain.cached.is_shared", lambda: True)
    assert decided(auto(), workspace, tmp_path) == "fp32"
    assert measured["asked"] == []


@pytest.mark.parametrize("epochs", [1, 2], ids=["unfinished", "finished"])
def test_a_pretraining_in_the_cache_keeps_its_precision(
    workspace, tmp_path, measured, monkeypatch, epochs
):
    """What is measured may change: by load, or the number of threads."""
    config, run, trained = pretrained(auto()), Pretraining.run_epoch, []

    def counted(self):
        if len(trained) == epochs:
            raise KeyboardInterrupt
        trained.append((self.epoch, self.network.autocast))
        return run(self)

    monkeypatch.setattr(Pretraining, "run_epoch", counted)
    try:
        first = Workspace(workspace.dataset, tmp_path, CPU).backbone(config).digest
    except KeyboardInterrupt:
        first = None
    assert (first is None) == (epochs == 1)
    for file in (tmp_path / "precision").glob("*.json"):
        file.unlink()
    measured["seconds"] = SLOWER
    monkeypatch.setattr(
        Pretraining,
        "run_epoch",
        lambda self: trained.append((self.epoch, self.network.autocast)) or run(self),
    )
    again = Workspace(workspace.dataset, tmp_path, CPU).backbone(config).digest
    assert trained == [(0, True), (1, True)]
    assert first in (None, again)
