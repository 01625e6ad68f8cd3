"""Trainings with style normalisation and restitution: resumed, cached, exported, refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.experiment import Experiment, ExperimentError, UserError
from gsfl_tune.training import Training
from gsfl_tune.training.pricing.cost import largest_model, term_bytes
from gsfl_tune.training.pricing.problems import cost_problems

from .checks import bundle_of, check_cached_as_whole, check_resumes
from .conftest import tiny_config

FINETUNE = {"epochs": 2, "batch_size": 24, "blocks": 2, "snr": True, "learning_rate": 0.01}


def config_of(views=0, weight=0.1, head=1, **training):
    stages = {"head": {"epochs": head, "batch_size": 16}, "finetune": FINETUNE}
    return tiny_config(
        data={"views": views},
        loss={"causality": {"weight": weight}},
        training={**stages, **training},
    )


@pytest.mark.parametrize("views", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_resuming_equals_never_having_stopped(workspace, tmp_path, views):
    config = config_of(views, ema=0.5)
    training = check_resumes(config, workspace, tmp_path, 2)
    records = training.log.read()
    assert records[0]["train/causality"] == 0  # in the head stage
    assert records[-1]["train/causality"] > 0
    network = training.trained_network()
    module = network.backbone.restitution
    assert (module.scale - 1).abs().max() > 1e-3
    assert module.gate[2].weight.abs().max() > 0
    bundle = bundle_of(training, tmp_path / "bundle")
    found = bundle.predict(workspace.dataset.test.squares(np.arange(4)), top=1)
    logits = torch.from_numpy(training.predict("test").logits[:4])
    wanted = logits.softmax(dim=1).amax(dim=1).tolist()
    assert [each.probabilities[0] for each in found] == pytest.approx(wanted, abs=1e-5)


def test_cached_activations_train_what_the_network_does(workspace, tmp_path, monkeypatch):
    finetune = {**FINETUNE, "learning_rate": 1e-3}
    config = config_of(views=2, head=0, finetune=finetune)
    check_cached_as_whole(config, workspace, tmp_path, monkeypatch)


def test_with_mixed_images_and_sam_the_parts_are_those_of_the_pass(workspace, tmp_path):
    finetune = {**FINETUNE, "epochs": 1, "mixup": 0.5}
    training = Training(
        config_of(head=0, finetune=finetune, method="sam"), workspace, tmp_path, pieces=2
    )
    assert training.run_epoch()["train/causality"] > 0


TEXT = """name: t
data: {source: typefaces, image_size: 64}
model: {backbone: test_efficientnet, weights: none}
loss: {causality: {weight: 0.1}}
training:
  method: single
  finetune: {epochs: 1, blocks: 1, snr: true}
"""


def test_what_does_not_go_together_is_said(workspace, tmp_path):
    assert cost_problems(Experiment.parse(TEXT)) == []
    for old, new, words in (
        ("method: single", "method: rdrop", "training.method: rdrop, allowed false, or"),
        ("snr: true", "snr: true, compile: true", "compile: true, which would lose"),
        ("test_efficientnet", "test_vit", "not a map of channels"),
    ):
        (found,) = cost_problems(Experiment.parse(TEXT.replace(old, new), file="t.yaml"))
        assert found.path == "training.finetune.snr"
        assert found.line == 7
        assert words in str(found)
    with pytest.raises(ExperimentError, match=r"t\.yaml:4: loss\.causality\.weight: found 0\.1 wi"):
        Experiment.parse(TEXT.replace("snr: true", "snr: false"), file="t.yaml")
    with pytest.raises(UserError, match=r"training\.finetune\.snr: found true with training\.meth"):
        Training(config_of(method="rdrop"), workspace, tmp_path)


def test_its_weights_are_priced(workspace, tmp_path):
    one, other = (
        largest_model(Experiment.parse(TEXT).fixed({"training.finetune.snr": value}))
        for value in (True, False)
    )
    training = Training(config_of(finetune={**FINETUNE, "blocks": 1}), workspace, tmp_path)
    module = training.network(workspace.new_backbone(training.config)).backbone.restitution
    counted = sum(parameter.numel() for parameter in module.parameters())
    assert one.trained - other.trained == counted
    held = sum(parameter.numel() for parameter in training.loss.terms["causality"].parameters())
    experiment = Experiment.parse(TEXT)
    classes = training.head.class_count
    assert term_bytes(experiment, 16, classes) >= 16 * held
    assert term_bytes(experiment.fixed({"training.finetune.snr": False}), 16, classes) == 0
