"""`training.pmg.prediction: joint` in real trainings: learnt, exported, priced."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.experiment import Experiment
from gsfl_tune.export.thresholds import scaled
from gsfl_tune.training import Training
from gsfl_tune.training.fingerprint import fingerprint
from gsfl_tune.training.pricing.cost import largest_model
from gsfl_tune.training.pricing.one_step import largest_config, rehearse

from .checks import bundle_of, check_resumes
from .conftest import tiny_config
from .test_training import run

FINETUNE = {"epochs": 2, "batch_size": 24, "blocks": 2, "head_learning_rate": 0.01}


def config_of(finetune=None, head=0, settings=None, model=None, **training):
    stages = {
        "head": {"epochs": head, "batch_size": 16},
        "finetune": {**FINETUNE, **(finetune or {})},
        "method": "pmg",
        "pmg": {"width": 8, "prediction": "joint", **(settings or {})},
        "precision": "fp32",
    }
    data = {"image_size": 48}
    return tiny_config(data=data, model=model or {}, training={**stages, **training})


def test_resuming_equals_never_having_stopped(workspace, tmp_path):
    config = config_of(head=1, ema=0.9)
    training = check_resumes(config, workspace, tmp_path, stop_after=2)
    head, *finetune = training.log.read()
    assert "train/jigsaw" not in head
    assert all(record["train/together"] > 0 for record in finetune)
    stage = training._current()
    own, average = (each.granularities.scores[2].weight for each in (stage.module, stage.evaluated))
    assert own.any()  # it begins at zero
    assert not torch.equal(own, average)


@pytest.mark.parametrize(
    ("model", "finetune"),
    [
        ({"head": "gsfl"}, {}),
        pytest.param(
            {"head": "linear", "pooling": "native"},
            {"blocks": "all"},
            id="all",
            marks=pytest.mark.slow,
        ),
        pytest.param({"layer_b": 1}, {"train": "lora"}, id="lora", marks=pytest.mark.slow),
        pytest.param({"backbone": "test_vit"}, {}, id="vit", marks=pytest.mark.slow),
    ],
)
def test_a_bundle_predicts_what_the_run_says(workspace, tmp_path, model, finetune):
    config = config_of(finetune, model={"backbone": "test_efficientnet", **model})
    training = run(Training(config, workspace, tmp_path / "training"))
    network, test = training.trained_network(), workspace.dataset.test
    bundle = bundle_of(training, tmp_path / "bundle")
    assert bundle.network.granularities.settings == network.granularities.settings
    predicted = torch.from_numpy(training.predict("test").logits)
    logits = bundle.runtime.logits(test.gather(np.arange(len(test))))
    torch.testing.assert_close(logits, predicted, atol=1e-4, rtol=1e-4)
    # What the evidence looks at is what predicts.
    features = training.trained_features("test", np.arange(4))
    torch.testing.assert_close(network.head.infer(features), logits[:4], atol=1e-4, rtol=1e-4)
    unit, _ = network.head.divided(features)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(4))
    # The head alone says something else.
    assert (network.head.infer(unit) - logits[:4]).abs().max() > 1e-3
    # A temperature divides all that is added up.
    network.load_state_dict({**network.state_dict(), **scaled(network.inference_state(), 0.5)})
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        2 * network.infer(images), bundle.network.infer(images), atol=1e-4, rtol=1e-4
    )


def test_the_finetune_stage_starts_as_the_model_of_the_head_stage(workspace, tmp_path):
    training = Training(config_of(head=1), workspace, tmp_path)
    training.run_epoch()
    index = np.arange(len(workspace.dataset.test))
    wanted = training._current().logits(workspace.dataset.test, "test", index)
    found = training._enter("finetune").logits(workspace.dataset.test, "test", index)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_training_of_an_earlier_version_goes_on_as_it_was():
    plain = config_of(settings={"prediction": "head"})
    assert fingerprint(plain) != fingerprint(config_of())
    dumped = plain.model_dump()
    del dumped["training"]["pmg"]["prediction"]
    assert fingerprint(type(plain).model_validate(dumped)) == fingerprint(plain)


TEXT = """name: t
data: {source: typefaces, image_size: 64}
model: {backbone: test_efficientnet, weights: none}
training:
  method: pmg
  pmg: {width: {int: [8, 16]}, levels: {int: [1, 3]}, prediction: {choice: [head, joint]}}
  finetune: {epochs: 1, blocks: 2}
"""


def test_its_weights_are_priced_and_its_step_is_rehearsed(workspace, tmp_path):
    experiment = Experiment.parse(TEXT)
    one, other = (
        largest_model(each)
        for each in (experiment, experiment.fixed({"training.pmg.prediction": "head"}))
    )
    config = largest_config(experiment)
    assert (config.training.pmg.prediction, config.training.pmg.width) == ("joint", 16)
    training = Training(config_of(settings={"width": 16}), workspace, tmp_path)
    network = training.network(workspace.new_backbone(training.config)).granularities
    counted = sum(parameter.numel() for parameter in network.parameters())
    # Its classifiers are of as many classes as the workspace has.
    per_class = 3 * 17
    counted += per_class * (one.class_count - workspace.dataset.class_count)
    assert one.trained - other.trained == one.parameters - other.parameters == counted
    rehearse(config_of(), workspace)
