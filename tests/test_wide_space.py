"""Whatever the widest space draws is trained in every stage, exported, and predicts what it did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gsfl_tune.experiment import Experiment
from gsfl_tune.export import bundle_from_network, load_bundle
from gsfl_tune.models import create_backbone
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from gsfl_tune.training import Training, Workspace
from gsfl_tune.training.standalone import open_workspace

WIDE = Path(__file__).parents[1] / "search_spaces" / "wide.yaml"
# The same choices on tiny images, with a tiny network.
TINY = (
    "data.source=typefaces",
    "data.typefaces.train=4",
    "data.typefaces.test=2",
    "data.typefaces.size=40",
    "data.image_size={choice: [32, 48]}",
    "data.eval_image_size={choice: [48, 32]}",
    "model.backbone=test_efficientnet",
    "model.backbone_b={choice: [none, test_vit], when: {model.pooling: [bilinear, "
    "compact_bilinear]}}",
    "model.weights=none",
    "model.latent_dim={int: [4, 16], when: {model.head: [gsfl, plain, fsdg]}}",
    "model.pooling_channels={int: [4, 8], when: {model.pooling: [bilinear, compact_bilinear, "
    "isqrt_cov]}}",
    "model.pooling_dim={choice: [16, 64], when: {model.pooling: compact_bilinear}}",
    "model.groups.count={int: [1, 5], when: {model.head: [gsfl, fsdg]}}",
    "training.head.epochs=1",
    "training.head.batch_size=16",
    "training.head.generate.steps={int: [1, 3], when: {training.head.generate.share: {gt: 0}}}",
    "training.finetune.epochs=1",
    "training.finetune.batch_size=16",
    "training.device=cpu",
    "training.precision=fp32",
    "search.time_budget=null",
    "search.trials=1000",
    "search.sampler.name=random",
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    pytest.importorskip("peft")
    pytest.importorskip("pytorch_metric_learning")
    pytest.importorskip("schedulefree")
    return open_workspace(Experiment.load(WIDE, TINY), tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 3), pytest.param(1, 300, marks=[pytest.mark.slow])]
)
def test_every_configuration_trains_exports_and_predicts(
    workspace: Workspace, tmp_path: Path, seed: int, count: int
) -> None:
    experiment = Experiment.load(WIDE, [*TINY, f"search.seed={seed}"])
    study = open_study(experiment, RunDirectory(tmp_path / "run"))
    test = workspace.dataset.test
    for number in range(count):
        asked = study.ask()
        assert asked is not None
        config = experiment.configure(asked.params)
        folder = tmp_path / str(number)
        training = Training(config, workspace, folder)
        while not training.finished:
            losses = training.run_epoch()
            assert all(np.isfinite(losses[key]) for key in losses if "/" in key), asked.params
        bundle_from_network(
            folder / "bundle",
            training.trained_network(),
            config,
            classes=workspace.dataset.classes,
            groups=training.groups,
            side=test.side,
            metrics={},
        )
        study.complete(asked.number, 0.0)
        bundle = load_bundle(folder / "bundle", device="cpu")
        found = bundle.predict(test.squares(np.arange(4)), top=1)
        logits = torch.from_numpy(training.predict("test").logits[:4])
        wanted = logits.softmax(dim=1).amax(dim=1).tolist()
        assert [each.probabilities[0] for each in found] == pytest.approx(wanted, abs=2e-3), (
            asked.params
        )


def test_a_draw_has_only_what_has_an_effect(tmp_path: Path) -> None:
    """Conditions leave out what would be searched in vain."""
    experiment = Experiment.load(WIDE, TINY)
    assert experiment.warnings == []
    study = open_study(experiment, RunDirectory(tmp_path / "run"))
    for _ in range(200):
        asked = study.ask()
        assert asked is not None
        active = experiment.space.active_params(asked.params)
        assert ("model.groups.count" in active) == (active["model.head"] in ("gsfl", "fsdg"))
        config = experiment.configure(asked.params)
        method, finetune = config.training.method, config.training.finetune
        assert ("training.sam.rho" in active) == (method == "sam")
        loss = config.loss
        rebalanced = loss.class_weights, loss.logit_adjustment, config.training.balanced_sampling
        assert sum(value > 0 for value in rebalanced) <= 1
        if method == "rdrop":
            assert config.model.head != "linear"
            assert config.model.dropout >= 0.1
        if method == "attention_crop":
            assert config.training.attention_crop.crop or config.training.attention_crop.drop
        if finetune.train in ("norms", "biases"):
            assert finetune.optimizer != "muon"
        if finetune.blocks == 1:
            assert (finetune.layer_decay, finetune.drop_path) == (1, 0)
        levels = [name for name in active if name.startswith("training.pmg.levels")]
        assert len(levels) == (method == "pmg" and finetune.blocks != 1)
        assert all(active[name] <= {2: 2}.get(finetune.blocks, 3) for name in levels)
        study.fail(asked.number, "not trained")


def test_the_last_block_of_its_backbones_has_no_branch_that_could_be_dropped() -> None:
    for name in Experiment.load(WIDE, TINY[:5]).values("model.backbone"):
        backbone = create_backbone(name, "none")
        images = torch.randn(4, 3, 64, 64)
        for blocks, same in ((1, True), (2, False)):
            backbone.train_last(blocks)
            backbone.drop_paths(0.5)
            with torch.no_grad():
                first, second = (backbone.train()(images) for _ in range(2))
            assert torch.equal(first, second) == same
