"""The maps that stages give to methods."""

from __future__ import annotations

import importlib.metadata

import pytest
import torch

from gsfl_tune import plugins
from gsfl_tune.data import Batch, Targets
from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.methods import Method
from gsfl_tune.training import Training
from gsfl_tune.training.pricing.problems import cost_problems
from gsfl_tune.training.pricing.work import training_work

from .conftest import tiny_config

FINETUNE = {"epochs": 1, "batch_size": 24}


def stage_of(workspace, folder, *, blocks=1, views=0, pooling="average", **finetune):
    config = tiny_config(
        data={"views": views},
        model={"pooling": pooling, "pooling_channels": 4},
        training={
            "head": {"epochs": 0},
            "finetune": {**FINETUNE, "blocks": blocks, **finetune},
        },
    )
    return Training(config, workspace, folder)._current()


@pytest.mark.parametrize("pooling", ["average", "native", "bilinear"])
@pytest.mark.parametrize(("blocks", "views"), [("all", 0), (1, 0), (2, 2)])
def test_features_are_pooled_maps(workspace, tmp_path, blocks, views, pooling):
    stage = stage_of(workspace, tmp_path, blocks=blocks, views=views, pooling=pooling)
    passes = stage.passes
    batch = next(iter(stage._batches.train_batches(0, 3)))
    with passes.evaluating():
        features = passes.features(batch.inputs)
        maps = passes.maps(batch.inputs)
        assert maps.ndim == 4
        assert torch.equal(passes.pool(maps), features)
        assert torch.allclose(passes.pool(maps, fixed_length=True), features, atol=1e-6)
    # They can be trained through.
    passes.pool(passes.maps(batch.inputs)).square()[:, 0].sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in stage.module.backbone.parameters())


def test_the_head_stage_has_none(workspace, tmp_path):
    stage = Training(tiny_config(), workspace, tmp_path)._current()
    assert stage.passes.maps is None
    assert stage.passes.pool is None


def test_what_is_only_looked_at_leaves_norms_as_they_were(workspace, tmp_path):
    stage = stage_of(workspace, tmp_path, blocks="all")
    network = stage.module.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = next(iter(stage._batches.train_batches(0, 3)))
    with stage.passes.evaluating():
        assert not network.head.training
        stage.passes.maps(batch.inputs)
    assert network.head.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    stage.passes.maps(batch.inputs)
    assert not all(torch.equal(before[k], value) for k, value in network.state_dict().items())


def test_what_a_method_draws_is_a_function_of_epoch_and_image(workspace, tmp_path):
    stage = stage_of(workspace, tmp_path)
    positions = torch.tensor([3, 8])
    found = []
    for seed in (1, 2, 1):
        stage._seed = seed
        found.append(stage.passes.draws(positions, 4))
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_cross_entropy_of_further_scores_is_that_of_the_configuration(workspace, tmp_path):
    config = tiny_config(
        loss={"label_smoothing": 0.2, "class_weights": 0.5, "focal": 1.0},
        training={"head": {"epochs": 1}},
    )
    training = Training(config, workspace, tmp_path)
    passes = training._current().passes
    f = torch.nn.functional.normalize(torch.randn(6, training.head.feature_dim), dim=1)
    output = training.head(f)
    labels = torch.arange(6) % 4
    for targets in (Targets(labels), Targets(labels, others=labels.flip(0), kept=0.7)):
        expected = passes.loss(output, f, targets).cross_entropy
        found = passes.cross_entropy(output.logits, targets)
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)


class Looking(Method):
    """Trains on images that it turns upside down."""

    reads_maps = True
    needs_images = True
    unmixed = True
    head_passes = 3
    feature_passes = 2

    def step(self, batch: Batch, passes):
        inputs = batch.inputs
        if passes.maps is not None:
            assert inputs.shape[1] == 3
            inputs = inputs.flip(2)
        features = passes.features(inputs)
        return passes.loss(passes.head(features), features, batch.targets)


@pytest.fixture
def looking(monkeypatch):
    entry = importlib.metadata.EntryPoint("looking", f"{__name__}:Looking", "gsfl_tune.methods")
    added = plugins.Plugin("method", "looking", "looks 1.0", entry)
    found = {kind: dict(plugins.plugins(kind)) for kind in plugins.GROUPS}
    found["method"] = {"looking": added}
    monkeypatch.setattr(plugins, "_found", lambda: (found, ()))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data": {"views": 2}}, "data.views: found 2 .* activations are cached"),
        ({"training": {"finetune": {"mixup": 0.2}}}, "finetune.mixup: found 0.2, allowed 0"),
        ({"training": {"finetune": {"cutmix": 1.0}}}, "finetune.cutmix: found 1, allowed 0"),
        (
            {"model": {"backbone": "test_vit", "pooling": "cls"}, "data": {"image_size": 160}},
            "model.pooling: found cls, .* needs a feature map",
        ),
    ],
)
def test_what_a_method_cannot_work_with_is_refused(
    workspace, tmp_path, looking, changes, complaint
):
    config = tiny_config(
        data=changes.get("data", {}),
        model=changes.get("model", {}),
        training={
            "method": "looking",
            "head": {"epochs": 0},
            "finetune": {
                **FINETUNE,
                "blocks": 1,
                **changes.get("training", {}).get("finetune", {}),
            },
        },
    )
    with pytest.raises(UserError, match=complaint):
        Training(config, workspace, tmp_path)._current()


TEXT = """name: t
data: {source: typefaces, image_size: 64}
model: {backbone: test_efficientnet, weights: none}
training:
  method: {choice: [single, looking]}
  finetune:
    epochs: 2
    blocks: 1
    mixup: {choice: [0, 0.2], when: {training.method: single}}
search: {trials: 2, control: 'off'}
"""


@pytest.mark.parametrize(
    ("overrides", "paths"),
    [
        ([], []),
        (["data.views=2"], ["data.views"]),
        (["data.views=2", "training.finetune.blocks=all"], []),
        (["data.views=2", "training.method=single"], []),
        (["training.finetune.cutmix={choice: [0, 1]}"], ["training.finetune.cutmix"]),
        (
            ["model.backbone=test_vit", "data.image_size=160", "model.pooling=cls"],
            ["model.pooling"],
        ),
        (["training.finetune.epochs=0", "data.views=2"], []),
        (["data.image_size={choice: [64, 32]}"], ["training.method"]),
        (
            ["loss.distill.weight={choice: [1, 0]}", "training.teacher=some/bundle"],
            ["loss.distill.weight"],
        ),
    ],
)
def test_a_check_says_so_before_anything_is_trained(looking, overrides, paths):
    experiment = Experiment.parse(TEXT, overrides=overrides)
    assert [problem.path for problem in cost_problems(experiment)] == paths


def test_a_method_of_maps_is_priced_as_one_pass_of_the_head_stage(looking):
    both = {"head": {"epochs": 2}, "finetune": {"epochs": 2, "blocks": 1}}
    single, own = (
        training_work(
            tiny_config(training={**both, "method": name}), train=64, validation=8, classes=4
        )
        for name in ("single", "looking")
    )
    assert own[0].operations == single[0].operations
    assert own[1].operations > 1.5 * single[1].operations
