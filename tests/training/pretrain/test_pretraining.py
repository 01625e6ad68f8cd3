"""A pretraining: it can be killed and goes on to the same bits, and says why it cannot go on."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gsfl_tune.experiment import UserError
from gsfl_tune.models import create_backbone
from gsfl_tune.training import Workspace
from gsfl_tune.training.pretrain import (
    Pretraining,
    PretrainingFailed,
    pretraining_digest,
    starting_backbone,
)
from gsfl_tune.training.pretrain.base import across
from gsfl_tune.training.pretrain.bases import SimSiam
from gsfl_tune.training.pretrain.network import spread, typical_spread
from tests.training.pretrain.conftest import config_of, strategy

CPU = torch.device("cpu")
EVERYTHING = {"discriminative": strategy(warmup=0.5), "lcr": {"weight": 0.05, "channels": 4}}


def pretrained(config):
    """The same with a pretraining in front of its stages."""
    training = config.training.model_copy(update={"pretrain": True})
    return config.model_copy(update={"training": training})


def start(directory, images, **changes):
    config = config_of(**changes)
    backbone = starting_backbone(config)
    key = pretraining_digest(config, images, backbone, CPU)
    return Pretraining(config, backbone, images, directory, key=key, device=CPU)


def finish(training):
    while not training.finished:
        training.record(training.run_epoch())
    return training


def weights(training):
    return {name: t.clone() for name, t in training.network.backbone.model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "moco", **EVERYTHING, "image_size": 64},
        {
            "method": "dino",
            "optimizer": "adamw",
            "learning_rate": 1e-3,
            "augment": {"local_crops": 2, "local_size": 16},
        },
    ],
    ids=["moco, all strategies", "dino with small views"],
)
def test_a_pretraining_that_is_continued_has_the_same_bits(tmp_path, images, changes):
    whole = finish(start(tmp_path / "whole", images, **changes))
    first = start(tmp_path / "parts", images, **changes)
    first.record(first.run_epoch())
    # The process ends here, in the middle of the next epoch.
    first.run_epoch()
    again = start(tmp_path / "parts", images, **changes)
    assert again.restore()
    assert again.epoch == 1
    finish(again)
    assert same(weights(whole), weights(again))
    records = [[{**r, "seconds": 0} for r in each.log.read()] for each in (whole, again)]
    assert records[0] == records[1]
    assert [record["epoch"] for record in records[0]] == [1, 2]


def test_what_is_written_is_weights_that_a_backbone_takes(tmp_path, images):
    training = finish(start(tmp_path, images, epochs=1))
    file = tmp_path / "weights.safetensors"
    training.write(file)
    backbone = create_backbone("test_resnet", str(file))
    assert same(weights(training), backbone.model.state_dict())
    assert not same(
        backbone.model.state_dict(), create_backbone("test_resnet", "none").model.state_dict()
    )
    training.write(tmp_path / "again.safetensors")
    assert file.read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    assert set(load_file(file)) == set(backbone.model.state_dict())


def test_a_checkpoint_of_other_settings_is_not_continued(tmp_path, images):
    finish(start(tmp_path, images, epochs=1))
    other = start(tmp_path, images, epochs=2)
    assert not other.restore()
    assert other.epoch == 0
    assert other.log.read() == []


def test_pairs_begin_after_the_warm_up(tmp_path, images):
    records = finish(start(tmp_path, images, discriminative=strategy(warmup=0.5))).log.read()
    assert ["train/pair" in record for record in records] == [False, True]
    assert all(0.4 <= record["train/not_discriminative"] <= 0.8 for record in records)
    last = records[-1]
    parts = [last[f"train/{name}"] for name in ("base", "reconstruction", "pair")]
    assert last["train/loss"] == pytest.approx(np.dot([1, 0.3, 0.7], parts))


def test_a_loss_that_is_not_finite_ends_it_with_a_reason(tmp_path, images):
    training = start(tmp_path, images, learning_rate=1e30, warmup=0.0)
    with pytest.raises(PretrainingFailed, match=r"non-finite train/\S+.* in epoch [12]"):
        finish(training)
    assert json.dumps(training.log.read())  # nothing that JSON lacks


def test_collapse_ends_it_with_a_reason(tmp_path, images):
    training = start(tmp_path, images)
    with torch.no_grad():
        # Norms without scale: the same map for every image.
        for name, parameter in training.network.backbone.model.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(0.0 if "weight" in name else 1.0)
    with pytest.raises(PretrainingFailed, match=r"collapsed in epoch 1.*pretrain\.collapse: 0\.01"):
        training.run_epoch()
    allowed = start(tmp_path, images, collapse=0.0)
    allowed.network.load_state_dict(training.network.state_dict())
    assert allowed.run_epoch()["train/spread"] < 0.01


def test_a_collapse_that_batch_norms_hide_is_caught(tmp_path, images, monkeypatch):
    """SimSiam without its stopped gradient, as in figure 2 of its paper.

    The backbone's representations stay apart, and the norm at the end of the projection leaves one
    image of a batch apart from all others, which are alike.
    """

    def loss(self, given):
        projected = [self.project(view) for view in given.views]
        found = across(self.compare, [self.predict(each) for each in projected], projected)
        return found, projected[0]

    hard = {"method": "simsiam", "learning_rate": 1.0, "warmup": 0.0, "epochs": 12}
    sound = finish(start(tmp_path / "sound", images, **hard)).log.read()
    assert min(record["train/projected"] for record in sound) > 0.05
    monkeypatch.setattr(SimSiam, "loss", loss)
    training = start(tmp_path / "collapsed", images, **hard)
    with pytest.raises(
        PretrainingFailed, match=r"projections collapsed in epoch \d+: their typical"
    ):
        finish(training)
    before = training.log.read()[-1]
    assert before["train/spread"] > 0.3
    assert before["train/projected"] < 0.5


def test_dino_goes_on_with_momentum_although_its_prototypes_begin_later(tmp_path, images):
    settings = {"method": "dino", "optimizer": "sgd", "collapse": 0.0}
    training = finish(start(tmp_path, images, learning_rate=1e-4, **settings))
    assert len(training.log.read()) == 2


@pytest.mark.parametrize("rate", [0.03, 0.001])
def test_dino_collapses_with_momentum_at_usual_rates(tmp_path, images, rate):
    """The page on pretraining says so and names AdamW instead."""
    training = start(tmp_path, images, method="dino", optimizer="sgd", learning_rate=rate)
    with pytest.raises(PretrainingFailed, match="projections collapsed in epoch 2"):
        finish(training)


def test_the_typical_distance_is_zero_where_most_images_are_alike():
    generator = torch.Generator().manual_seed(0)
    apart = torch.randn(12, 8, generator=generator)
    assert float(typical_spread(apart)) > 0.7
    # As a batch norm leaves a collapsed batch: variance 1 in every dimension.
    one = torch.full((12, 8), -(11**-0.5))
    one[3] = 11**0.5
    assert float(one.var(dim=0, correction=0).mean()) == pytest.approx(1)
    assert float(spread(one)) > 0.5
    assert float(typical_spread(one)) < 1e-6


def test_the_spread_is_the_deviation_of_unit_vectors():
    vectors = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    unit = vectors.double().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    assert float(spread(vectors)) == pytest.approx(math.sqrt(unit.var(axis=0).sum()))
    assert float(spread(torch.ones(5, 3))) < 1e-6
    assert float(spread(torch.cat([torch.eye(3), -torch.eye(3)]))) == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 5000}, r"pretrain\.batch_size: found 5000 for \d+ images, allowed at most"),
        (
            {"augment": {"scale": 1, "ratio": 1, "flip": False, "color": 0, "grey": 0, "blur": 0}},
            r"pretrain\.augment: found no change.*both views",
        ),
        (
            # Of all views, so both are the same grey image.
            {"augment": {"scale": 1, "ratio": 1, "flip": False, "color": 0, "grey": 1, "blur": 0}},
            r"pretrain\.augment: found no change.*both views",
        ),
        (
            {"method": "vicreg", "augment": {"local_crops": 2}},
            r"pretrain\.augment\.local_crops: found 2 with pretrain\.method vicreg.*allowed: 0, or "
            r"simsiam, byol, moco, dino, lejepa",
        ),
        (
            {"augment": {"local_crops": 2, "local_size": 64}},
            r"pretrain\.augment\.local_size: found 64, allowed at most the image size, 32",
        ),
        ({"lcr": {"weight": 0.1}}, r"pretrain\.lcr\.weight: found 0\.1.*map of one position"),
    ],
)
def test_what_cannot_be_trained_is_said_before(tmp_path, images, changes, message):
    with pytest.raises(UserError, match=message):
        start(tmp_path, images, **changes)


def test_the_seed_decides_weights_and_views(tmp_path, images):
    found = [
        weights(finish(start(tmp_path / str(n), images, epochs=1, seed=seed)))
        for n, seed in enumerate((0, 0, 1))
    ]
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_trials_that_share_a_pretraining_share_its_result(tmp_path, workspace, monkeypatch):
    trained = []
    run = Pretraining.run_epoch
    monkeypatch.setattr(
        Pretraining, "run_epoch", lambda self: trained.append(self.epoch) or run(self)
    )
    config = config_of()
    learned = pretrained(config)
    first, second = (Workspace(workspace.dataset, tmp_path, CPU) for _ in range(2))
    backbone = first.backbone(learned)
    assert trained == [0, 1]
    features = first.features(learned)
    # Another trial of the node, with another head: nothing is trained again.
    other = learned.model_copy(update={"model": learned.model.model_copy(update={"latent_dim": 8})})
    assert second.backbone(other).digest == backbone.digest
    assert trained == [0, 1]
    # One workspace serves trials with and without it.
    plain = first.features(config)
    assert not torch.allclose(plain, features)
    assert torch.equal(first.features(learned), features)
    faster = learned.pretrain.model_copy(update={"learning_rate": 0.01})
    changed = learned.model_copy(update={"pretrain": faster})
    assert not torch.allclose(first.features(changed), features)
    assert trained == [0, 1, 0, 1]
    assert not list((tmp_path / "pretrained").glob("*.unfinished"))


def test_a_pretraining_of_a_trial_goes_on_where_it_was_killed(tmp_path, workspace, monkeypatch):
    config = pretrained(config_of())
    run, trained = Pretraining.run_epoch, []

    def killed(self):
        if trained == [0]:
            raise KeyboardInterrupt
        trained.append(self.epoch)
        return run(self)

    monkeypatch.setattr(Pretraining, "run_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        Workspace(workspace.dataset, tmp_path / "a", CPU).backbone(config)
    monkeypatch.setattr(
        Pretraining, "run_epoch", lambda self: trained.append(self.epoch) or run(self)
    )
    found = Workspace(workspace.dataset, tmp_path / "a", CPU).backbone(config)
    assert trained == [0, 1]
    whole = Workspace(workspace.dataset, tmp_path / "b", CPU).backbone(config)
    assert found.digest == whole.digest


def test_a_collapsed_pretraining_fails_its_trial_with_the_reason(tmp_path, workspace):
    config = pretrained(config_of(collapse=0.999))
    with pytest.raises(UserError, match=r"^pretrain: the representations collapsed in epoch 1"):
        Workspace(workspace.dataset, tmp_path, CPU).backbone(config)
