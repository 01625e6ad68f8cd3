"""Numbers that a method adds to the record of an epoch."""

from __future__ import annotations

import importlib.metadata

import numpy as np
import pytest
import torch

from gsfl_tune import plugins
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.metrics import VALIDATION, of_part
from gsfl_tune.methods import Method, single_pass
from gsfl_tune.training import Training
from gsfl_tune.training.pricing.cost import term_bytes

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


class Large(Measuring):
    """Trains a layer of its own, from latent parts to classes."""

    def build(self, sizes):
        super().build(sizes)
        self.layer = torch.nn.Linear(sizes.latent_dim, sizes.class_count)


class Reading(Large):
    """Reads values of what it makes, which the meta device does not have."""

    def build(self, sizes):
        super().build(sizes)
        self.largest = float(self.layer.weight.detach().max())


@pytest.fixture
def measuring(monkeypatch):
    """Adds methods as a package does."""
    found = {kind: dict(plugins.plugins(kind)) for kind in plugins.GROUPS}
    for kind in (Measuring, Large, Reading):
        name = kind.__name__.lower()
        entry = importlib.metadata.EntryPoint(
            name, f"{__name__}:{kind.__name__}", "gsfl_tune.methods"
        )
        found["method"][name] = plugins.Plugin("method", name, "measures 1.0", entry)
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


@pytest.mark.parametrize("name", ["large", "reading"])
def test_what_a_method_makes_is_priced(measuring, name):
    text = "name: t\ndata: {source: typefaces, image_size: 32}\ntraining: {method: METHOD}\n"
    plain = Experiment.parse(text.replace("METHOD", "single"))
    large = Experiment.parse(text.replace("METHOD", f"{{choice: [single, {name}]}}"))
    latent, classes = 24, 21
    layer = latent * classes + classes
    # Weight, gradient and two moments, 4 bytes each; and the count of steps.
    assert term_bytes(plain, latent, classes, 48) == 0
    assert term_bytes(large, latent, classes, 48) == 16 * layer + 4
