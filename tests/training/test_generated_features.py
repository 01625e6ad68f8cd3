"""Generated features of rare classes, through real trainings of the head."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.losses.attributes import ATTRIBUTES
from gsfl_tune.training import Training, Workspace
from gsfl_tune.training.caches.feature_table import FeatureTable
from gsfl_tune.training.fingerprint import fingerprint
from gsfl_tune.training.generate import CRITICS
from gsfl_tune.training.pricing import training_work
from gsfl_tune.training.pricing.costs import Costs
from gsfl_tune.training.stages import HeadStage

from .checks import check_resumes
from .conftest import tiny_config
from .test_training import assert_equal_states, run, state_of

SMALL = {"share": 0.3, "steps": 4, "hidden_dim": 8, "noise_dim": 4, "batch_size": 8}


def generating(head=None, training=None, data=None, **generate):
    settings = {"epochs": 2, **(head or {}), "generate": {**SMALL, **generate}}
    return tiny_config(training={"head": settings, **(training or {})}, data=data or {})


@pytest.mark.parametrize("critic", CRITICS)
def test_a_training_that_stopped_ends_as_one_that_did_not(workspace, tmp_path, critic):
    condition = "class_mean" if critic == "relation" else "image"
    config = generating(critic=critic, condition=condition)
    whole = check_resumes(config, workspace, tmp_path, stop_after=1)
    state = state_of(whole)["generator"]
    assert ("means" in state) == (condition == "class_mean")
    first, second = whole.log.read()
    # Trained once, in front of the first epoch.
    assert first["start_seconds"] > 0
    assert "start_seconds" not in second


def test_the_finetune_stage_goes_on_without_them(workspace, tmp_path):
    finetune = {"epochs": 1, "batch_size": 24, "blocks": 1}
    config = generating(head={"epochs": 1}, training={"finetune": finetune})
    whole = check_resumes(config, workspace, tmp_path, stop_after=1)
    assert "generator" not in state_of(whole)


def test_features_of_other_images_decide_nothing(workspace, tmp_path, monkeypatch):
    config = generating()
    plain = run(Training(config, workspace, tmp_path / "plain"))
    table = workspace.table(config, "features", torch.device("cpu"))
    spoilt = table._tensors[0].clone()
    spoilt[torch.from_numpy(workspace.dataset.validation_index)] = 0.3
    monkeypatch.setattr(HeadStage, "_features", FeatureTable([spoilt], table.device))
    other = run(Training(config, workspace, tmp_path / "spoilt"))
    for part in ("module", "generator"):
        assert_equal_states(state_of(plain)[part], state_of(other)[part])
    last = [each.log.read()[-1]["validation/nll"] for each in (plain, other)]
    assert last[0] != last[1]


class Seen:
    """Notes the batches that a stage trains on."""

    def __init__(self, training, monkeypatch):
        self.views, self.positions, self.extras = [], [], []
        step = training.context.method.step

        def noted(batch, passes):
            self.views.append(batch.views)
            self.positions.append(batch.positions)
            self.extras.append(batch.targets.extras)
            return step(batch, passes)

        monkeypatch.setattr(training.context.method, "step", noted)


@pytest.mark.parametrize("method", ["single", "rdrop", "two_views"])
def test_an_epoch_has_its_images_once_and_the_share(workspace, tmp_path, monkeypatch, method):
    config = generating(training={"method": method})
    training = Training(config, workspace, tmp_path)
    seen = Seen(training, monkeypatch)
    training.run_epoch()
    images = training.context.train_positions
    count = len(images) + round(0.3 * len(images))
    sizes = [len(each) for each in seen.positions]
    assert sum(sizes) == count
    assert len(sizes) == training._stage.batches == -(-count // 16)
    table = workspace.table(config, "features", torch.device("cpu"))._tensors[0]
    places = torch.cat(seen.positions)
    assert set(places.tolist()) == set(images.tolist())
    for view in zip(*seen.views, strict=True):
        rows = torch.cat(view)
        assert torch.allclose(rows.norm(dim=1), torch.ones(()), atol=1e-5)
        real = (rows == table[places]).all(dim=1)
        assert int(real.sum()) == len(images)
        assert sorted(places[real].tolist()) == sorted(images.tolist())
    assert all(torch.equal(first, other) for first, *rest in seen.views for other in rest)


def test_views_of_an_image_are_filled_up_too(cache_dir, tmp_path):
    config = generating(training={"method": "two_views"}, data={"views": 3})
    workspace = Workspace.open(config.data, cache_dir=cache_dir, device=torch.device("cpu"))
    check_resumes(config, workspace, tmp_path, stop_after=1)


def test_nobody_knows_the_attributes_of_a_generated_feature(workspace, tmp_path, monkeypatch):
    training = Training(generating(), workspace, tmp_path)
    known = torch.ones((len(workspace.dataset.pool), 2))
    training.context = replace(training.context, known_of_images={ATTRIBUTES: known})
    seen = Seen(training, monkeypatch)
    training.run_epoch()
    found = torch.cat([each[ATTRIBUTES] for each in seen.extras])
    images = len(training.context.train_positions)
    assert int(found.isfinite().all(dim=1).sum()) == images
    assert int(found.isnan().all(dim=1).sum()) == round(0.3 * images)


def test_one_image_of_each_class_is_refused_before_it_trains(cache_dir, tmp_path):
    config = generating(data={"shots": 1})
    workspace = Workspace.open(config.data, cache_dir=cache_dir, device=torch.device("cpu"))
    with pytest.raises(UserError, match="no class has two images"):
        Training(config, workspace, tmp_path).run_epoch()


def test_at_a_share_of_zero_a_training_is_the_one_that_it_was():
    plain, off = tiny_config(), tiny_config(training={"head": {"generate": {"steps": 9}}})
    assert fingerprint(plain) == fingerprint(off)
    epochs = tiny_config(training={"head": {"epochs": 2}})
    assert fingerprint(epochs) != fingerprint(generating())
    assert fingerprint(generating()) != fingerprint(generating(margin=2.0))


def test_a_training_costs_the_generator_once_and_its_features_in_every_epoch():
    plain, more = (
        training_work(each, train=200, validation=40, classes=8)[0]
        for each in (tiny_config(training={"head": {"epochs": 2}}), generating())
    )
    assert plain.once == 0
    assert more.once > 0
    assert (plain.once_steps, more.once_steps) == (0, 4 * (3 + 1))
    assert more.steps == -(-260 // 16)
    assert more.operations > 1.2 * plain.operations
    costs = Costs(rate=1e6)
    whole, rest = costs.training([more]), costs.training([more], done=1)
    once = more.once / 1e6 + 16 * 2e-3
    assert whole - rest == pytest.approx(1.5 + costs.epoch(more) + once)
    half = 1.5 + once + 1.1 * costs.epoch(more)
    assert costs.until([more], half) == 1
