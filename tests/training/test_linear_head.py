"""`model.head: linear`: a linear classifier of the unit feature, trained, exported, searched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.experiment import Experiment
from gsfl_tune.export import bundle_from_network, load_bundle
from gsfl_tune.training import Training

from .checks import check_resumes
from .conftest import tiny_config
from .test_training import state_of

LINEAR = {"head": "linear", "feature_scale": 8.0}
STAGES = {
    "head": {"head": {"epochs": 3, "learning_rate": 0.01}},
    "both": {"head": {"epochs": 1}, "finetune": {"epochs": 2, "batch_size": 24, "blocks": 1}},
}


@pytest.mark.parametrize("training", STAGES.values(), ids=STAGES)
def test_it_trains_resumes_and_is_exported(workspace, tmp_path, training):
    config = tiny_config(model=LINEAR, training=training)
    whole = check_resumes(config, workspace, tmp_path, stop_after=1)
    names = [name for name in state_of(whole)["module"] if "classifier" not in name]
    assert not any("discriminative" in name or "shared" in name for name in names)

    dataset = workspace.dataset
    path = bundle_from_network(
        tmp_path / "bundle",
        whole.trained_network(),
        config,
        classes=dataset.classes,
        groups=None,
        side=dataset.pool.side,
        metrics={},
    )
    logits = load_bundle(path).logits(dataset.test)
    assert np.allclose(logits, whole.predict("test").logits, atol=1e-4)
    assert "a linear classifier" in (path / "README.md").read_text()


def test_the_scores_are_linear_in_the_feature(workspace, tmp_path):
    training = Training(tiny_config(model=LINEAR), workspace, tmp_path)
    f = torch.nn.functional.normalize(torch.randn(5, training.head.feature_dim), dim=1)
    weight, bias = training.head.classifier.weight, training.head.classifier.bias
    expected = 8.0 * f @ weight.T + bias
    assert torch.allclose(training.head(f).logits, expected, atol=1e-5)
    assert torch.equal(training.head.infer(f), training.head(f).logits)


def test_what_it_has_no_use_for_is_not_searched_in_vain():
    text = """
name: linear
data: {source: typefaces, image_size: 32}
model:
  backbone: test_efficientnet
  weights: none
  head: linear
  dropout: {float: [0, 0.5]}
  latent_dim: {int: [8, 64]}
training: {head: {learning_rate: {float: [1.0e-3, 1.0e-1], log: true}}}
"""
    warned = "\n".join(str(each) for each in Experiment.parse(text).warnings)
    for key in ("model.dropout", "model.latent_dim"):
        assert key in warned
    assert "learning_rate" not in warned
