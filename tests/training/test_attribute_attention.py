"""`training.method: attribute_attention` in real trainings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.experiment import Experiment, ExperimentError, UserError
from gsfl_tune.losses import Sizes
from gsfl_tune.methods.attribute_attention import AttributeAttention
from gsfl_tune.models.layers import layers_of
from gsfl_tune.training import Training
from gsfl_tune.training.pricing.cost import term_bytes
from gsfl_tune.training.pricing.one_step import largest_config, rehearse

from .checks import check_cached_as_whole, check_resumes
from .conftest import tiny_config
from .test_attributes import annotate
from .test_training import assert_equal_states, run, state_of

FINETUNE = {"epochs": 2, "batch_size": 24, "blocks": 1}


def config_of(views=0, head=1, size=48, section=None, precision="fp32", **finetune):
    training = {
        "method": "attribute_attention",
        "attribute_attention": {"width": 16, **(section or {})},
        "head": {"epochs": head, "batch_size": 16},
        "finetune": {**FINETUNE, **finetune},
        "precision": precision,
    }
    return tiny_config(data={"image_size": size, "views": views}, training=training)


@pytest.mark.parametrize(("views", "mixup"), [(0, 0.4), (2, 0.0)])
def test_resuming_equals_never_having_stopped(workspace, tmp_path, monkeypatch, views, mixup):
    annotate(monkeypatch, workspace)
    config = config_of(views, mixup=mixup)
    whole = check_resumes(config, workspace, tmp_path, stop_after=2)
    head, *finetune = whole.log.read()
    assert "train/attribute_error" not in head
    for record in finetune:
        assert record["train/attribute_error"] > 0
        assert record["train/attribute_contrast"] > 0
    state = state_of(whole)["method"]
    assert state["attended.queries"].any()  # they begin at zero
    assert not any("attended" in name for name in whole.trained_network().state_dict())


def test_cached_activations_train_what_the_network_does(workspace, tmp_path, monkeypatch):
    annotate(monkeypatch, workspace)
    config = config_of(views=2, head=0, learning_rate=1e-3)
    check_cached_as_whole(config, workspace, tmp_path, monkeypatch)


def test_attributes_are_learnt_and_teach_the_backbone_alone(workspace, tmp_path, monkeypatch):
    annotate(monkeypatch, workspace)
    found = {}
    for name, weight in (("on", 2.0), ("off", 0.0)):
        section = {"weight": weight, "contrast": 0.2 * weight}
        config = config_of(head=0, epochs=6, section=section, head_learning_rate=0.01)
        training = Training(config, workspace, tmp_path / name)
        before = {key: value.clone() for key, value in training.head.state_dict().items()}
        found[name] = before, run(training)
    assert_equal_states(found["on"][0], found["off"][0])
    on, off = (found[name][1].log.read() for name in ("on", "off"))
    for key in ("train/attribute_error", "train/attribute_contrast"):
        assert on[-1][key] < 0.95 * on[0][key]
    assert off[-1]["train/attribute_contrast"] == 0
    states = [state_of(found[name][1])["module"] for name in ("on", "off")]
    assert any(
        not torch.equal(states[0][name], states[1][name])
        for name in states[0]
        if name.startswith("backbone")
    )


def test_half_precision_and_all_blocks_and_pieces(workspace, tmp_path, monkeypatch):
    annotate(monkeypatch, workspace)
    config = config_of(head=0, epochs=1, blocks="all", cutmix=1.0, precision="bf16")
    training = run(Training(config, workspace, tmp_path, pieces=2))
    assert np.isfinite(training.log.read()[-1]["train/loss"])
    assert np.isfinite(training.predict("test").logits).all()


def test_without_a_finetune_stage_attributes_are_not_needed(workspace, tmp_path):
    training = Training(config_of(epochs=0), workspace, tmp_path)
    assert not training.context.method.state_dict()


TEXT = """name: t
data: {source: typefaces, attribute_columns: [a, b, c], image_size: 64}
model: {backbone: test_efficientnet, weights: none, head: plain}
training:
  method: {choice: [single, attribute_attention]}
  attribute_attention: {width: {int: [8, 24]}}
  finetune: {epochs: 1}
"""


def test_images_without_attributes_are_refused(workspace, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"training\.method: found attribute_attention, but no .*"):
        Training(config_of(), workspace, tmp_path)
    annotate(monkeypatch, workspace, lambda values: values.fill(3))
    with pytest.raises(UserError, match=r"training\.method: found the value 3 of the attribute"):
        Training(config_of(), workspace, tmp_path)
    text = TEXT.replace("attribute_columns: [a, b, c], ", "")
    wanted = r"t\.yaml:5: training\.method: found attribute_attention with source typefaces"
    with pytest.raises(ExperimentError, match=wanted):
        Experiment.parse(text, file="t.yaml")
    # Without a finetune stage nothing reads them.
    Experiment.parse(text.replace("epochs: 1", "epochs: 0").replace("{int: [8, 24]}", "8"))


def test_a_temperature_without_contrast_has_no_effect():
    text = TEXT.replace("{width: {int: [8, 24]}}", "{contrast: 0, temperature: {float: [0.1, 1]}}")
    (found,) = Experiment.parse(text).warnings
    assert found.path == "training.attribute_attention.temperature"
    assert "no effect" in found.message


def test_its_parameters_are_priced_and_its_step_is_rehearsed(workspace, tmp_path, monkeypatch):
    experiment = Experiment.parse(TEXT)
    channels = layers_of("test_efficientnet", "all", 64)[0].channels
    method = AttributeAttention(1.0, 0.1, 0.1, 24, True)
    method.build(Sizes(48, 24, 21, None, (channels,), extras={"attributes": 3}))
    counted = sum(parameter.numel() for parameter in method.parameters())
    assert term_bytes(experiment, 24, 21) == 16 * counted
    assert term_bytes(experiment.fixed({"training.method": "single"}), 24, 21) == 0
    assert largest_config(experiment).training.method == "attribute_attention"
    annotate(monkeypatch, workspace)
    rehearse(config_of(), workspace)
