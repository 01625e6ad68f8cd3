"""What a training begins with on the hub is what it goes on with."""

from __future__ import annotations

import json

import pytest
import timm

from gsfl_tune.experiment import Experiment, ExperimentError, UserError
from gsfl_tune.models import create_backbone
from gsfl_tune.pretraining import pretrain
from gsfl_tune.training.pin_weights import pin_weights
from gsfl_tune.training.pricing.problems import cost_problems
from gsfl_tune.training.standalone import train
from tests.hub_models import publish, timm_model
from tests.hub_server import hub_in_use

TEXT = """\
name: tiny
data:
  source: typefaces
  image_size: 32
  typefaces: {train: 6, test: 2, size: 40}
model: {backbone: test_byobnet, weights: "hf-hub:anna/zoo", latent_dim: 8, groups: {count: 3}}
training: {device: cpu, head: {epochs: 3, batch_size: 32}}
pretrain: {epochs: 2, batch_size: 32, warmup: 0}
"""
SPACE = """\
name: tiny
data: {source: typefaces, image_size: 32}
model:
  backbone: {choice: [test_byobnet, test_efficientnet]}
  weights:
    - {choice: [none, "hf-hub:anna/zoo"], when: {model.backbone: test_byobnet}}
    - {choice: [none, hf-hub:anna/net@main], when: {model.backbone: test_efficientnet}}
  dropout: {float: [0.1, 0.5], when: {model.weights: hf-hub:anna/zoo}}
training: {device: cpu}
search:
  enqueue: [{model.backbone: test_byobnet, model.weights@0: "hf-hub:anna/zoo"}]
"""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_in_use(monkeypatch, tmp_path / "hub") as server:
        server.first = publish(server, "anna/zoo", timm_model("test_byobnet"), tmp_path / "zoo")
        yield server


def pinned(text, known=None, *overrides, **options):
    lines = []
    experiment = Experiment.parse(text, overrides=overrides)
    return *pin_weights(experiment, known or {}, lines.append, **options), lines


def stopping_at(epoch):
    def stop(record):
        if record["epoch"] == epoch:
            raise KeyboardInterrupt

    return stop


def test_names_are_replaced_wherever_they_are(hub, tmp_path):
    net = publish(hub, "anna/net", timm_model("test_efficientnet"), tmp_path / "net")
    first, second = f"hf-hub:anna/zoo@{hub.first}", f"hf-hub:anna/net@{net}"
    experiment, pins, lines = pinned(SPACE)
    assert pins == {"hf-hub:anna/zoo": first, "hf-hub:anna/net@main": second}
    assert lines[0] == f"hf-hub:anna/zoo is now {first}: the latter always means these weights"
    text = experiment.to_yaml()
    assert "hf-hub:anna/zoo\n" not in text
    assert "anna/net@main" not in text
    (asked,) = experiment.defaults().search.enqueue
    assert first in asked.values()
    params = {"model.backbone": "test_byobnet", "model.weights@0": first, "model.dropout": 0.3}
    assert experiment.configure(params).model.weights == first
    assert experiment.configure(params).model.dropout == 0.3
    # Weights of one model are not asked of another one.
    assert cost_problems(experiment) == []
    again, further, more = pinned(text)
    assert (again, further, more) == (experiment, {}, [])


def test_what_a_run_has_begun_with_stays(hub, tmp_path):
    _, begun, _ = pinned(TEXT)
    publish(hub, "anna/zoo", timm_model("test_byobnet", seed=1), tmp_path / "newer")
    experiment, pins, lines = pinned(TEXT, begun)
    assert experiment.defaults().model.weights == f"hf-hub:anna/zoo@{hub.first}"
    assert (pins, lines) == (begun, [])
    # What is named otherwise is asked for again.
    newer, _, _ = pinned(TEXT, begun, "model.weights=hf-hub:anna/zoo@main")
    assert newer.defaults().model.weights != experiment.defaults().model.weights


def test_only_what_is_used_is_asked_for(hub):
    experiment, pins, _ = pinned(SPACE, searched=False)
    assert (pins, experiment.defaults().model.weights) == ({}, "none")
    with pytest.raises(UserError, match=r"model\.weights: hf-hub:anna/net@main: found no such"):
        pinned(SPACE)


def test_wrong_weights_are_a_problem_of_the_space(hub):
    experiment = Experiment.parse(TEXT, overrides=["model.backbone=test_efficientnet"])
    (problem,) = cost_problems(experiment)
    assert problem.path == "model.weights"
    assert (
        "holds weights of test_byobnet, found model.backbone test_efficientnet" in problem.message
    )
    mixed = Experiment.parse(
        TEXT, overrides=["model.backbone={choice: [test_byobnet, test_efficientnet]}"]
    )
    assert len(cost_problems(mixed)) == 1


def test_two_backbones_have_weights_of_their_own(hub, tmp_path):
    overrides = ["model.backbone_b=test_efficientnet", "model.pooling=bilinear"]
    with pytest.raises(ExperimentError, match=r"those of model\.weights are of the first backbone"):
        Experiment.parse(TEXT, overrides=overrides)
    net = publish(hub, "anna/net", timm_model("test_efficientnet"), tmp_path / "net")
    both = [*overrides, "model.weights_b=hf-hub:anna/net", "model.pooling_channels=4"]
    experiment, pins, _ = pinned(TEXT, None, *both)
    assert set(pins) == {"hf-hub:anna/zoo", "hf-hub:anna/net"}
    assert experiment.defaults().model.weights_b == f"hf-hub:anna/net@{net}"
    model = experiment.defaults().model
    assert create_backbone(model.extractor, model.extractor_weights).channels > 0
    wrong = [*overrides, "model.weights_b=hf-hub:anna/zoo"]
    problem = cost_problems(Experiment.parse(TEXT, overrides=wrong))[0]
    assert problem.path == "model.weights_b"
    assert "found model.backbone test_efficientnet" in problem.message


def test_a_training_goes_on_with_the_weights_it_began_with(hub, tmp_path):
    folder, cache = tmp_path / "training", tmp_path / "cache"
    experiment = Experiment.parse(TEXT)

    with pytest.raises(KeyboardInterrupt):
        train(experiment, folder, cache_dir=cache, on_epoch=stopping_at(2))
    publish(hub, "anna/zoo", timm_model("test_byobnet", seed=1), tmp_path / "newer")
    epochs = []
    done = train(experiment, folder, cache_dir=cache, on_epoch=epochs.append)
    assert [each["epoch"] for each in epochs] == [2, 3]
    assert done.config.model.weights == f"hf-hub:anna/zoo@{hub.first}"
    # Begun anew, it has the newest ones.
    other = train(experiment, tmp_path / "other", cache_dir=cache)
    assert other.config.model.weights != done.config.model.weights


def test_a_pretraining_goes_on_with_the_weights_it_began_with(hub, tmp_path):
    pytest.importorskip("lightly")
    folder, cache = tmp_path / "pretraining", tmp_path / "cache"
    experiment = Experiment.parse(TEXT)

    with pytest.raises(KeyboardInterrupt):
        pretrain(experiment, folder, cache_dir=cache, on_record=stopping_at(1))
    publish(hub, "anna/zoo", timm_model("test_byobnet", seed=1), tmp_path / "newer")
    pretrain(experiment, folder, cache_dir=cache, resume=True)
    facts = json.loads((folder / "pretrain.json").read_text())
    assert facts["settings"]["weights"] == f"hf-hub:anna/zoo@{hub.first}"


def test_what_was_replaced_is_said_if_it_cannot_be_read(hub, tmp_path):
    experiment = Experiment.parse(TEXT)
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    (tmp_path / "hub-weights.json").write_text("[1]")
    with pytest.raises(UserError, match=r"hub-weights\.json: cannot be read"):
        train(experiment, tmp_path)


def test_a_model_of_timm_is_what_timm_itself_loads(hub, tmp_path):
    """The name is the one of timm: both give the same tensors."""
    ours = create_backbone("test_byobnet", f"hf-hub:anna/zoo@{hub.first}").model.state_dict()
    (folder,) = (tmp_path / "hub" / "models--anna--zoo" / "snapshots").iterdir()
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).state_dict()
    assert ours.keys() == theirs.keys()
    assert all((ours[key] == theirs[key]).all() for key in ours)
