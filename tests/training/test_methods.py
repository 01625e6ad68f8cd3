"""Methods in real trainings: what they show, what they keep, and that they train."""

from __future__ import annotations

import importlib.metadata

import numpy as np
import pytest
import torch

from gsfl_tune import plugins
from gsfl_tune.data import Annotations
from gsfl_tune.experiment.methods import METHODS
from gsfl_tune.methods import Method
from gsfl_tune.training import Training

from .checks import check_cached_as_whole, check_resumes
from .conftest import tiny_config
from .test_training import assert_equal_states, run, state_of

HEAD = {"epochs": 2, "batch_size": 16}
FINETUNE = {"epochs": 2, "batch_size": 24, "blocks": 1}
BOTH = {"head": HEAD, "finetune": FINETUNE}


@pytest.mark.parametrize("name", ["rdrop", "two_views", "sam"])
def test_resuming_equals_never_having_stopped(workspace, tmp_path, name):
    config = tiny_config(training={**BOTH, "method": name})
    whole = check_resumes(config, workspace, tmp_path, stop_after=3)
    records = whole.log.read()
    if name != "sam":
        assert all(record["train/disagreement"] > 0 for record in records)


@pytest.mark.parametrize("name", ["rdrop", "two_views", "sam"])
def test_a_method_changes_what_is_trained_and_no_random_number_of_it(workspace, tmp_path, name):
    plain = run(Training(tiny_config(training=BOTH), workspace, tmp_path / "single"))
    config = tiny_config(training={**BOTH, "method": name})
    other = Training(config, workspace, tmp_path / name)
    # They begin alike.
    fresh = Training(tiny_config(training=BOTH), workspace, tmp_path / "fresh")
    assert_equal_states(fresh.head.state_dict(), other.head.state_dict())
    run(other)
    key = "head.classifier.weight"
    assert not torch.equal(state_of(plain)["module"][key], state_of(other)["module"][key])
    assert plain._fingerprint != other._fingerprint


def test_settings_of_a_method_that_is_not_used_make_no_difference(workspace, tmp_path):
    one = Training(tiny_config(), workspace, tmp_path)
    other = Training(tiny_config(training={"rdrop": {"weight": 7.0}}), workspace, tmp_path)
    assert one._fingerprint == other._fingerprint


def test_agreement_is_what_rdrop_trains(workspace, tmp_path):
    found = {}
    for weight in (0.0, 20.0):
        head = {"epochs": 16, "learning_rate": 0.003}
        training = {"head": head, "method": "rdrop", "rdrop": {"weight": weight}}
        config = tiny_config(model={"dropout": 0.5}, training=training)
        records = run(Training(config, workspace, tmp_path / str(weight))).log.read()
        found[weight] = records[-1]["train/disagreement"]
    assert found[20.0] < 0.5 * found[0.0]


@pytest.mark.parametrize("views", [0, 2])
def test_both_views_show_the_images_of_the_batch(workspace, tmp_path, views):
    config = tiny_config(
        data={"views": views, "augment": {"flip": True}},
        training={"head": {"epochs": 0}, "finetune": FINETUNE, "method": "two_views"},
    )
    stage = Training(config, workspace, tmp_path)._current()
    alone = Training(
        tiny_config(
            data={"views": views, "augment": {"flip": True}},
            training={"head": {"epochs": 0}, "finetune": FINETUNE},
        ),
        workspace,
        tmp_path,
    )._current()
    pairs = zip(stage._batches.train_batches(0, 5), alone._batches.train_batches(0, 5), strict=True)
    for batch, single in pairs:
        first, second = batch.views
        # The first view is the one that a single view would be.
        assert torch.equal(first, single.inputs)
        assert not torch.equal(first, second)
        assert torch.equal(batch.positions, single.positions)
        labels = workspace.dataset.pool.labels[batch.positions.numpy()]
        assert np.array_equal(batch.labels.numpy(), labels)


def test_fixed_views_of_a_batch_differ_and_are_all_shown(workspace, tmp_path):
    config = tiny_config(
        data={"views": 3, "augment": {"flip": True}},
        training={"head": {"epochs": 1, "batch_size": 16}, "method": "two_views"},
    )
    training = Training(config, workspace, tmp_path)
    stage = training._current()
    order = training.context.train_positions
    shown = torch.stack([stage._shown(epoch, order) for epoch in range(3)])
    assert (shown[:, 0] != shown[:, 1]).all()
    for place in range(2):
        assert torch.equal(shown[:, place].sort(0).values[:, 0], torch.arange(3))


def test_the_cache_trains_as_the_whole_network_does(workspace, tmp_path, monkeypatch):
    settings = tiny_config(
        data={"views": 2},
        training={
            "head": {"epochs": 0},
            "finetune": {**FINETUNE, "optimizer": "sgd", "learning_rate": 1e-3},
            "method": "two_views",
        },
    )
    check_cached_as_whole(settings, workspace, tmp_path, monkeypatch)


def test_pieces_of_a_batch_train_what_the_batch_does(workspace, tmp_path):
    settings = {**BOTH, "method": "two_views"}
    settings["head"] = {**HEAD, "optimizer": "sgd", "learning_rate": 1e-3}
    settings["finetune"] = {"epochs": 0}
    config = tiny_config(model={"dropout": 0.0}, training=settings)
    whole = run(Training(config, workspace, tmp_path / "whole"))
    pieces = run(Training(config, workspace, tmp_path / "pieces", pieces=3))
    ours, theirs = state_of(whole)["module"], state_of(pieces)["module"]
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], atol=1e-5), name


class Pointing(Method):
    """Reads the pixel under the point of every view: it is as bright as the image says."""

    views = 2
    annotated = True

    def build(self, sizes):
        self.register_buffer("steps", torch.zeros(()))
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seen = []

    def step(self, batch, passes):
        self.seen.append(batch)
        features = passes.features(batch.views[0])
        terms = passes.loss(passes.head(features), features, batch.targets)
        return terms.plus("pull", 0.1, self.weight.square())

    def after_step(self):
        self.steps += 1


@pytest.fixture
def pointing(monkeypatch):
    entry = importlib.metadata.EntryPoint("pointing", f"{__name__}:Pointing", "gsfl_tune.methods")
    added = plugins.Plugin("method", "pointing", "points 1.0", entry)
    found = {kind: dict(plugins.plugins(kind)) for kind in plugins.GROUPS}
    found["method"] = {"pointing": added}
    monkeypatch.setattr(plugins, "_found", lambda: (found, ()))


def test_state_and_parameters_of_a_method_are_kept_and_trained(workspace, tmp_path, pointing):
    config = tiny_config(training={**BOTH, "method": "pointing"})
    whole = check_resumes(config, workspace, tmp_path, stop_after=3)
    state = state_of(whole)["method"]
    assert float(state["weight"]) < 1
    images = len(workspace.dataset.train_index)
    assert float(state["steps"]) == 2 * (-(-images // 16) + images // 24)


@pytest.mark.parametrize("views", [0, 2], ids=["images", "activations"])
def test_annotations_follow_what_was_done_to_the_images(
    workspace, tmp_path, pointing, monkeypatch, views
):
    pool = workspace.dataset.pool
    side = pool.side
    generator = np.random.default_rng(0)
    points = generator.uniform(0.3 * side, 0.7 * side, (len(pool), 1, 2)).astype(np.float32)
    boxes = [(0.0, 0.0, float(side), float(side))] * len(pool)
    every = Annotations.of(boxes, points=points, part_names=["beak"])
    monkeypatch.setattr(type(workspace.dataset), "annotations", lambda self, part: every)
    config = tiny_config(
        data={"views": views, "augment": {"flip": True, "policy": "trivial"}},
        training={"head": {"epochs": 0}, "finetune": FINETUNE, "method": "pointing"},
    )
    stage = Training(config, workspace, tmp_path)._current()
    augment, whole = stage._batches._augment, stage._batches._fixed_draws(0)
    for batch in stage._batches.train_batches(0, 3):
        first, second = batch.annotations
        assert not np.allclose(first.points, second.points)
        rows = batch.positions.numpy()
        for place, known in enumerate(batch.annotations):
            assert len(known) == len(batch)
            if whole is not None:
                matrices = augment.matrices(whole[place][rows], side).numpy()
                moved = matrices[:, :, :2] @ points[rows, 0, :, None] + matrices[:, :, 2:]
                assert np.allclose(known.points[:, 0], moved[..., 0], atol=1e-3)


def test_a_source_without_annotations_gives_none(workspace, tmp_path, pointing):
    config = tiny_config(
        training={"head": {"epochs": 0}, "finetune": FINETUNE, "method": "pointing"}
    )
    stage = Training(config, workspace, tmp_path)._current()
    assert all(batch.annotations is None for batch in stage._batches.train_batches(0, 3))


def test_the_registry_names_every_method_that_is_built_in():
    assert tuple(METHODS) == plugins.BUILT_IN["method"]
