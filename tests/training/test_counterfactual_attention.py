"""`training.method: counterfactual_attention` in real trainings: learnt, exported, refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.training import Training
from gsfl_tune.training.pricing.cost import largest_model
from gsfl_tune.training.pricing.one_step import largest_config, rehearse

from .checks import NO_NEW_IMAGES, bundle_of, check_refused, check_resumes
from .conftest import tiny_config
from .test_training import run

FINETUNE = {"epochs": 1, "batch_size": 24, "blocks": 1, "head_learning_rate": 0.01}
SETTINGS = {"maps": 4, "width": 8}


def config_of(data=None, finetune=None, head=0, settings=None, **training):
    stages = {
        "head": {"epochs": head, "batch_size": 16},
        "finetune": {**FINETUNE, **(finetune or {})},
        "method": "counterfactual_attention",
        "counterfactual_attention": {**SETTINGS, **(settings or {})},
        "precision": "fp32",
    }
    # Of 32 pixels the map has one position.
    return tiny_config(data={"image_size": 48, **(data or {})}, training={**stages, **training})


@pytest.mark.parametrize("blocks", [1, pytest.param("all", marks=pytest.mark.slow)])
def test_resuming_equals_never_having_stopped(workspace, tmp_path, blocks):
    config = config_of(finetune={"epochs": 2, "blocks": blocks}, head=1, ema=0.9)
    training = check_resumes(config, workspace, tmp_path, stop_after=2)
    head, *finetune = training.log.read()
    assert "train/effect" not in head
    assert all(record["train/effect"] > 0 for record in finetune)
    stage = training._current()
    own, average = (each.attention.join for each in (stage.module, stage.evaluated))
    assert own.any()  # it begins at zero
    assert not torch.equal(own, average)
    started = training.network(training.workspace.new_backbone(config)).attention
    assert not torch.equal(started.attend.weight, stage.module.attention.attend.weight)


def test_the_finetune_stage_starts_as_the_model_of_the_head_stage(workspace, tmp_path):
    config = config_of(head=2)
    training = Training(config, workspace, tmp_path)
    for _ in range(2):
        training.run_epoch()
    index = np.arange(len(workspace.dataset.test))
    wanted = training._current().logits(workspace.dataset.test, "test", index)
    stage = training._enter("finetune")
    found = stage.logits(workspace.dataset.test, "test", index)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", ["gsfl", "linear"])
def test_a_bundle_predicts_what_the_run_says(workspace, tmp_path, head):
    config = config_of(finetune={"epochs": 2})
    config = config.model_copy(update={"model": config.model.model_copy(update={"head": head})})
    training = run(Training(config, workspace, tmp_path / "training"))
    network, test = training.trained_network(), workspace.dataset.test
    bundle = bundle_of(training, tmp_path / "bundle")
    assert bundle.network.attention.settings == network.attention.settings
    predicted = torch.from_numpy(training.predict("test").logits)
    logits = bundle.runtime.logits(test.gather(np.arange(len(test))))
    torch.testing.assert_close(logits, predicted, atol=1e-4, rtol=1e-4)
    # What the evidence looks at is what predicts.
    features = training.trained_features("test", np.arange(4))
    torch.testing.assert_close(network.head.infer(features), logits[:4], atol=1e-4, rtol=1e-4)
    # The attention counts in what is predicted.
    bundle.network.attention = None
    other = bundle.runtime.logits(test.gather(np.arange(len(test))))
    assert (other - logits).abs().max() > 1e-3


def test_half_precision_pieces_and_growing_images(workspace, tmp_path):
    config = config_of(
        data={"image_size": 64}, finetune={"start_size": 0.7, "blocks": "all"}, precision="bf16"
    )
    training = run(Training(config, workspace, tmp_path, pieces=2))
    assert np.isfinite(training.log.read()[-1]["train/loss"])
    assert np.isfinite(training.predict("test").logits).all()


def test_a_batch_in_pieces_gives_the_same_gradients(workspace, tmp_path):
    """Up to what batch norms see, which are frozen here."""
    # Rounding may move the edge of a crop by a pixel.
    alone = {"crop": 0.0, "drop": 0.0}
    states = []
    for pieces in (1, 3):
        config = config_of(finetune={"train": "biases"}, settings=alone)
        training = Training(config, workspace, tmp_path / str(pieces), pieces=pieces)
        stage = training._enter("finetune")
        stage.module.eval()
        torch.nn.init.normal_(
            stage.module.attention.join, 0, 0.3, generator=torch.Generator().manual_seed(0)
        )
        batch = next(iter(stage._batches.train_batches(0, 0)))
        stage._seed = 0
        for part in batch.chunk(pieces):
            stage._step(part, len(part) / len(batch))
        states.append([p.grad.clone() for p in stage.module.attention.parameters()])
    for one, other in zip(*states, strict=True):
        # Sums over a batch in another order: rounding counts against the largest of them.
        rounding = 1e-4 * float(one.abs().max())
        torch.testing.assert_close(one, other, atol=rounding, rtol=1e-4)
        assert one.any()


def test_without_a_finetune_stage_nothing_attends(workspace, tmp_path):
    training = run(Training(config_of(finetune={"epochs": 0}, head=1), workspace, tmp_path))
    assert training.trained_network().attention is None


TEXT = """name: t
data: {source: typefaces, image_size: 64}
model: {backbone: test_efficientnet, weights: none}
training:
  method: counterfactual_attention
  finetune: {epochs: 1, blocks: 1}
"""


def test_what_does_not_go_together_is_said(workspace, tmp_path):
    check_refused(TEXT, NO_NEW_IMAGES)
    with pytest.raises(UserError, match=r"data\.views: found 2 .* counterfactual_attention makes"):
        run(Training(config_of(data={"views": 2}), workspace, tmp_path))


def test_its_weights_are_priced_and_its_step_is_rehearsed(workspace, tmp_path):
    space = TEXT.replace("method: c", "method: {choice: [single, c").replace("ion\n", "ion]}\n")
    space += "  counterfactual_attention: {maps: {choice: [4, 16]}, width: {int: [8, 24]}}\n"
    experiment = Experiment.parse(space)
    one, other = (
        largest_model(each)
        for each in (experiment, experiment.fixed({"training.method": "single"}))
    )
    config = largest_config(experiment)
    assert config.training.method == "counterfactual_attention"
    assert config.training.counterfactual_attention.maps == 16
    settings = {"maps": 16, "width": 24}
    training = Training(config_of(settings=settings), workspace, tmp_path)
    network = training.network(workspace.new_backbone(training.config))
    counted = sum(parameter.numel() for parameter in network.attention.parameters())
    assert one.trained - other.trained == one.parameters - other.parameters == counted
    rehearse(config_of(), workspace)
