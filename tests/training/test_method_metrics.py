"""Numbers that a method adds to the record of an epoch."""

from __future__ import annotations

import importlib.metadata

import numpy as np
import pytest
import torch

from gsfl_tune import plugins
from gsfl_tune.experiment.metrics import VALIDATION, of_part
from gsfl_tune.methods import Method, single_pass
from gsfl_tune.training import Training

from .checks import check_resumes
from .conftest import tiny_config
from .test_training import run

BOTH = {
    "head": {"epochs": 2, "batch_size": 16},
    "finetune": {"epochs": 1, "batch_size": 24, "blocks": 1},
}


class Measuring(Method):
    """A method of a package: one pass, and numbers of predictions and of its state."""

    def build(self, sizes):
        self.register_buffer("steps", torch.zeros(()))

    def step(self, batch, passes):
        return single_pass(batch, passes)

    def after_step(self):
        self.steps += 1

    def epoch_metrics(self, logits, labels):
        right = logits[np.arange(len(labels)), labels]
        others = logits.copy()
        others[np.arange(len(labels)), labels] = -np.inf
        return {
            "right": float((right > others.max(1)).mean()),
            "steps": float(self.steps),
            "undefined": float("nan"),
        }


@pytest.fixture
def measuring(monkeypatch):
    entry = importlib.metadata.EntryPoint("measuring", f"{__name__}:Measuring", "gsfl_tune.methods")
    found = {kind: dict(plugins.plugins(kind)) for kind in plugins.GROUPS}
    found["method"] = {"measuring": plugins.Plugin("method", "measuring", "measures 1.0", entry)}
    monkeypatch.setattr(plugins, "_found", lambda: (found, ()))


def test_numbers_of_a_method_are_in_every_epoch_of_both_stages(workspace, tmp_path, measuring):
    config = tiny_config(training={**BOTH, "method": "measuring"})
    whole = check_resumes(config, workspace, tmp_path, stop_after=2)
    records = whole.log.read()
    assert [record["stage"] for record in records] == ["head", "head", "finetune"]
    for record in records:
        # Of the predictions that were validated.
        assert record["method/right"] == pytest.approx(record["validation/accuracy"])
        assert "method/undefined" not in record
    images = len(workspace.dataset.train_index)
    steps = np.cumsum([-(-images // 16)] * 2 + [images // 24])
    assert [record["method/steps"] for record in records] == steps.tolist()


def test_a_method_changes_no_metric_of_the_validation_images(workspace, tmp_path, measuring):
    plain = run(Training(tiny_config(training=BOTH), workspace, tmp_path / "plain"))
    config = tiny_config(training={**BOTH, "method": "measuring"})
    measured = run(Training(config, workspace, tmp_path / "measured"))
    for one, other in zip(plain.log.read(), measured.log.read(), strict=True):
        assert not any(key.startswith("method/") for key in one)
        assert of_part(VALIDATION, one) == of_part(VALIDATION, other)


def test_without_validation_images_nothing_is_measured(workspace, tmp_path, measuring):
    config = tiny_config(training={"head": BOTH["head"], "method": "measuring"})
    training = run(Training(config, workspace, tmp_path, fit="train+validation"))
    assert not any(key.startswith("method/") for key in training.log.read()[-1])
