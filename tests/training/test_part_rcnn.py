"""`training.method: part_rcnn` in real trainings: what is found, exported, priced and refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.data import Annotations
from gsfl_tune.evidence.parts import parts_report
from gsfl_tune.evidence.trained import TrainedModel
from gsfl_tune.experiment import Experiment, ExperimentError, UserError
from gsfl_tune.experiment.config import Config
from gsfl_tune.export import bundle_from_network, load_bundle
from gsfl_tune.training import Training
from gsfl_tune.training.pricing.cost import largest_model
from gsfl_tune.training.pricing.one_step import largest_config, rehearse
from gsfl_tune.training.pricing.problems import cost_problems

from .checks import NO_MAP, check_cached_as_whole, check_refused, check_resumes
from .conftest import tiny_config
from .marked import data_of, draw, workspace_of
from .test_training import run, state_of

FINETUNE = {"epochs": 2, "batch_size": 24, "blocks": 1}


def annotate(monkeypatch, workspace):
    """Gives every image two points, of which a third is unknown, and every other one a box."""
    pool = workspace.dataset.pool
    random = np.random.default_rng(0)
    points = random.uniform(0.1, 0.9, (len(pool), 2, 2)).astype(np.float32) * pool.side
    points[random.random((len(pool), 2)) < 0.3] = np.nan
    box = (0.2 * pool.side, 0.1 * pool.side, 0.8 * pool.side, 0.9 * pool.side)
    boxes = [box if place % 2 else None for place in range(len(pool))]
    every = Annotations.of(boxes, points=points, part_names=["left end", "right end"])
    monkeypatch.setattr(type(workspace.dataset), "annotations", lambda self, part: every)
    return every


def config_of(views=0, head=1, size=48, section=None, precision="fp32", model=None, **finetune):
    training = {
        "method": "part_rcnn",
        "part_rcnn": {"width": 16, **(section or {})},
        "head": {"epochs": head, "batch_size": 16},
        "finetune": {**FINETUNE, **finetune},
        "precision": precision,
    }
    data = {"image_size": size, "views": views}
    return tiny_config(data=data, training=training, model=model or {})


@pytest.mark.parametrize("views", [0, 2])
def test_resuming_equals_never_having_stopped(workspace, tmp_path, monkeypatch, views):
    annotate(monkeypatch, workspace)
    whole = check_resumes(config_of(views), workspace, tmp_path, stop_after=2)
    head, *finetune = whole.log.read()
    assert "train/part_place" not in head
    assert "method/part_overlap" not in head
    for record in finetune:
        for name in ("place", "overlap", "presence"):
            assert record[f"train/part_{name}"] > 0
        assert 0 < record["method/part_overlap"] < 1
    state = state_of(whole)["module"]
    assert state["parts.join"].any()  # it begins at zero
    assert state["parts.find.weight"].any()
    assert whole.context.part_names == ["object", "left end", "right end"]


def test_cached_activations_train_what_the_network_does(workspace, tmp_path, monkeypatch):
    annotate(monkeypatch, workspace)
    config = config_of(views=2, head=0, learning_rate=1e-3)
    check_cached_as_whole(config, workspace, tmp_path, monkeypatch)


@pytest.mark.parametrize("blocks", [1, "all"])
def test_half_precision_pieces_average_and_growing_images(workspace, tmp_path, monkeypatch, blocks):
    annotate(monkeypatch, workspace)
    config = config_of(head=0, blocks=blocks, precision="bf16", start_size=0.7, size=64)
    config = config.model_copy(update={"training": config.training.model_copy(update={"ema": 0.9})})
    training = run(Training(config, workspace, tmp_path, pieces=2))
    assert np.isfinite(training.log.read()[-1]["train/loss"])
    assert np.isfinite(training.predict("test").logits).all()
    stage = training._current()
    assert not torch.equal(stage.module.parts.join, stage.evaluated.parts.join)


def marked_config(table, epochs=24, **section):
    training = {
        "method": "part_rcnn",
        "part_rcnn": {"size": 0.22, "width": 32, **section},
        "head": {"epochs": 0},
        "finetune": {
            "epochs": epochs,
            "batch_size": 8,
            "blocks": "all",
            "learning_rate": 2e-3,
            "head_learning_rate": 1e-2,
        },
        "device": "cpu",
        "precision": "fp32",
    }
    model = {"backbone": "test_vit", "weights": "none", "latent_dim": 16, "head": "plain"}
    return Config.model_validate(
        {"name": "marks", "data": data_of(table), "model": model, "training": training}
    )


@pytest.mark.slow
def test_a_small_part_is_found_and_prediction_needs_no_annotation(tmp_path):
    table = draw(tmp_path / "images")
    config = marked_config(table)
    workspace = workspace_of(config, tmp_path / "cache")
    training = run(Training(config, workspace, tmp_path / "training"))
    first, *_, last = training.log.read()
    assert first["method/parts_found"] < 0.2
    assert last["method/parts_found"] > 0.6
    assert last["method/part_overlap"] > first["method/part_overlap"] + 0.2
    assert last["train/part_place"] < 0.6 * first["train/part_place"]
    predicted = training.predict("test").logits
    network = training.trained_network()
    test = workspace.dataset.test
    path = bundle_from_network(
        tmp_path / "bundle",
        network,
        config,
        classes=workspace.dataset.classes,
        groups=None,
        side=test.side,
        metrics={},
    )
    evidence = parts_report(
        TrainedModel(workspace, config, network, finetuned=True),
        workspace.dataset,
        np.arange(len(test)),
    )
    (mark,) = evidence["parts"]
    known = np.isfinite(workspace.dataset.annotations("test").points).all(2).sum()
    assert (mark["part"], mark["shown"], evidence["shown"]) == ("mark", known, known)
    assert 0.5 < mark["found"] == evidence["found"]
    assert mark["overlap"] > 0.4
    # Nothing that knows where the marks are is left.
    for file in table.parent.iterdir():
        file.unlink()
    bundle = load_bundle(path, device="cpu")
    assert bundle.network.parts.settings == network.parts.settings
    logits = bundle.runtime.logits(test.gather(np.arange(len(test))))
    torch.testing.assert_close(logits, torch.from_numpy(predicted), atol=1e-4, rtol=1e-4)
    features = training.trained_features("test", np.arange(4))
    torch.testing.assert_close(network.head.infer(features), logits[:4], atol=1e-4, rtol=1e-4)
    # The parts count in what is predicted.
    bundle.network.parts = None
    other = bundle.runtime.logits(test.gather(np.arange(len(test))))
    assert (other - logits).abs().max() > 1e-2


def test_without_a_finetune_stage_parts_are_not_needed(workspace, tmp_path):
    training = Training(config_of(epochs=0), workspace, tmp_path)
    assert training.network(workspace.new_backbone(training.config)).parts is None


TEXT = """name: t
data: {source: csv, path: images.csv, point_columns: [a, b], image_size: 64}
model: {backbone: test_efficientnet, weights: none, head: plain}
training:
  method: {choice: [single, part_rcnn]}
  part_rcnn: {width: {int: [8, 24]}}
  finetune: {epochs: 1, blocks: 1}
"""


@pytest.fixture
def table(tmp_path, monkeypatch):
    """The file that `TEXT` names; nothing here reads it."""
    (tmp_path / "images.csv").write_text("file,label,a_x,a_y,b_x,b_y\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("table")
def test_images_without_parts_are_refused(workspace, tmp_path, monkeypatch):
    with pytest.raises(
        UserError, match=r"training\.method: found part_rcnn, but no training image.*allowed"
    ):
        Training(config_of(), workspace, tmp_path)
    pool = workspace.dataset.pool
    boxes = Annotations.of([(1, 1, 9, 9)] * len(pool))
    monkeypatch.setattr(type(workspace.dataset), "annotations", lambda self, part: boxes)
    with pytest.raises(UserError, match=r"allowed training\.part_rcnn\.whole: true"):
        Training(config_of(section={"whole": False}), workspace, tmp_path)
    assert Training(config_of(), workspace, tmp_path).context.part_names == ["object"]
    for old, new, words in (
        ("source: csv, path: images.csv, point_columns: [a, b]", "source: typefaces", "no parts"),
        ("epochs: 1", "epochs: 0", "without a finetune stage"),
    ):
        text = TEXT.replace(old, new).replace("{int: [8, 24]}", "8")
        with pytest.raises(ExperimentError) as found:
            Experiment.parse(text, file="t.yaml")
        assert "t.yaml:5: training.method: found part_rcnn" in str(found.value)
        assert words in str(found.value)


@pytest.mark.usefixtures("table")
def test_what_does_not_go_together_is_said():
    mixed = (
        ("blocks: 1", "blocks: 1, mixup: 0.2", "training.finetune.mixup", "cannot be mixed"),
        ("blocks: 1", "blocks: 1, cutmix: 1", "training.finetune.cutmix", "cannot be mixed"),
    )
    check_refused(TEXT, (*NO_MAP, *mixed))
    # Cached activations have annotations of their views.
    cached = TEXT.replace("image_size: 64", "image_size: 64, views: 2")
    assert cost_problems(Experiment.parse(cached)) == []


@pytest.mark.usefixtures("table")
def test_its_weights_are_priced_and_its_step_is_rehearsed(workspace, tmp_path, monkeypatch):
    experiment = Experiment.parse(TEXT)
    one, other = (
        largest_model(each)
        for each in (experiment, experiment.fixed({"training.method": "single"}))
    )
    annotate(monkeypatch, workspace)
    training = Training(config_of(section={"width": 24}, size=64), workspace, tmp_path)
    network = training.network(workspace.new_backbone(training.config))
    counted = sum(parameter.numel() for parameter in network.parts.parameters())
    # Two points and the object, which a table may have.
    assert one.trained - other.trained == counted
    config = largest_config(experiment)
    assert (config.training.method, config.training.part_rcnn.width) == ("part_rcnn", 24)
    rehearse(config_of(), workspace)
