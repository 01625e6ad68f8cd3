"""Trainings with recurrent attention: what learns, exported, averaged, priced, refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.training import Training
from gsfl_tune.training.pricing.cost import largest_model
from gsfl_tune.training.pricing.one_step import largest_config

from .checks import NO_NEW_IMAGES, bundle_of, check_refused, check_resumes
from .conftest import tiny_config

FINETUNE = {"epochs": 1, "batch_size": 24, "blocks": 2, "head_learning_rate": 0.01}
SETTINGS = {"scales": 2, "steepness": 1.0}


def config_of(data=None, finetune=None, head=0, settings=None, **training):
    stages = {
        "head": {"epochs": head, "batch_size": 16},
        "finetune": {**FINETUNE, **(finetune or {})},
        "method": "recurrent_attention",
        "recurrent_attention": {**SETTINGS, **(settings or {})},
    }
    # Of 32 pixels the map has one position.
    return tiny_config(data={"image_size": 48, **(data or {})}, training={**stages, **training})


def trained(training):
    while not training.finished:
        record = training.run_epoch()
    return record


@pytest.mark.parametrize("blocks", [1, "all"])
def test_regions_learn_through_frozen_blocks_too(workspace, tmp_path, blocks):
    training = Training(config_of(finetune={"blocks": blocks}), workspace, tmp_path)
    record = trained(training)
    assert record["train/rank"] > 0
    network = training.trained_network()
    for proposal in network.recurrent.proposals:
        assert proposal.last.weight.abs().max() > 1e-4
        assert proposal.last.bias.abs().min() > 0
    frozen = dict(training.workspace.new_backbone(training.config).named_parameters())
    stem = next(iter(frozen))
    same = torch.equal(frozen[stem], dict(network.backbone.named_parameters())[stem])
    assert same == (blocks == 1)


def test_the_average_of_the_weights_has_regions_of_its_own_and_is_resumed(workspace, tmp_path):
    config = config_of(finetune={"epochs": 2}, head=1, ema=0.9)
    training = check_resumes(config, workspace, tmp_path, 2)
    stage = training._current()
    own, average = (
        each.recurrent.proposals[0].last.bias for each in (stage.module, stage.evaluated)
    )
    assert not torch.equal(own, average)
    assert 0 < average.abs().max() < own.abs().max()
    assert torch.equal(training.trained_network().recurrent.proposals[0].last.bias, average)


@pytest.mark.parametrize("evaluated", [48, 64])
def test_a_bundle_predicts_with_all_scales(workspace, tmp_path, evaluated):
    config = config_of(data={"eval_image_size": evaluated}, settings={"scales": 3})
    training = Training(config, workspace, tmp_path / "training")
    trained(training)
    network = training.trained_network()
    test = workspace.dataset.test
    bundle = bundle_of(training, tmp_path / "bundle")
    assert bundle.network.recurrent.settings == training.context.method.recurrence
    predicted = training.predict("test").logits
    found = bundle.predict(test.squares(np.arange(4)), top=1)
    wanted = torch.from_numpy(predicted[:4]).softmax(dim=1).amax(dim=1).tolist()
    assert [each.probabilities[0] for each in found] == pytest.approx(wanted, abs=1e-4)
    # What the evidence looks at is what predicts.
    features = training.trained_features("test", np.arange(4))
    expected = torch.from_numpy(predicted[:4])
    torch.testing.assert_close(network.head.infer(features), expected, atol=1e-4, rtol=1e-4)
    bundle.network.recurrent = None
    images = bundle.runtime.logits(test.gather(np.arange(4)))
    assert (images - expected).abs().max() > 1e-3


def test_a_batch_in_pieces_gives_the_same_gradients(workspace, tmp_path):
    """Up to what batch norms see, which are frozen here."""
    finetune = {"blocks": 1, "train": "biases"}
    states = []
    for pieces in (1, 3):
        config = config_of(finetune=finetune)
        training = Training(config, workspace, tmp_path / str(pieces), pieces=pieces)
        stage = training._enter("finetune")
        stage.module.eval()
        batch = next(iter(stage._batches.train_batches(0, 0)))
        stage._seed = 0
        for part in batch.chunk(pieces):
            stage._step(part, len(part) / len(batch))
        states.append([p.grad.clone() for p in stage.module.recurrent.parameters()])
    for one, other in zip(*states, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    assert any(bool(each.any()) for each in states[0])


def test_without_a_finetune_stage_nothing_is_proposed(workspace, tmp_path):
    config = config_of(finetune={"epochs": 0}, head=1)
    training = Training(config, workspace, tmp_path)
    trained(training)
    assert training.trained_network().recurrent is None


TEXT = """name: t
data: {source: typefaces, image_size: 64}
model: {backbone: test_efficientnet, weights: none}
training:
  method: recurrent_attention
  finetune: {epochs: 1, blocks: 1}
"""


def test_what_does_not_go_together_is_said(workspace, tmp_path):
    check_refused(TEXT, NO_NEW_IMAGES)
    with pytest.raises(
        UserError, match=r"data\.views: found 2 .* recurrent_attention makes new im"
    ):
        trained(Training(config_of(data={"views": 2}), workspace, tmp_path))


def test_its_weights_are_priced(workspace, tmp_path):
    space = TEXT + "  recurrent_attention: {scales: {choice: [2, 4]}, width: {int: [8, 24]}}\n"
    one, other = (
        largest_model(Experiment.parse(text))
        for text in (space, TEXT.replace("recurrent_attention", "single"))
    )
    config = largest_config(Experiment.parse(space))
    assert (config.training.recurrent_attention.scales, config.training.method) == (
        4,
        "recurrent_attention",
    )
    training = Training(config_of(settings={"scales": 4, "width": 24}), workspace, tmp_path)
    network = training.network(workspace.new_backbone(training.config))
    counted = sum(parameter.numel() for parameter in network.recurrent.parameters())
    assert one.trained - other.trained == counted
    assert one.parameters - other.parameters == counted
