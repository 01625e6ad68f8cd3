"""A pretraining that trials share: what its rungs say, and that nobody trains it twice."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.neighbors import KNeighborsClassifier

from gsfl_tune.cache import building
from gsfl_tune.cache.entries import entries, remove
from gsfl_tune.cache.shared import use_shared_cache
from gsfl_tune.data.contrast import images_without_labels
from gsfl_tune.experiment import UserError
from gsfl_tune.run.storage.retrying import open_storage
from gsfl_tune.run.storage.shared_cache import StoredCache
from gsfl_tune.search.workers.half_batches import with_half_batches
from gsfl_tune.training import Workspace
from gsfl_tune.training.pretrain import (
    Pretraining,
    PretrainingStopped,
    SharedPretraining,
    starting_backbone,
)
from gsfl_tune.training.pretrain.cached import weights_file
from tests.training.pretrain.conftest import config_of

CPU = torch.device("cpu")
RUNGS = [1, 2]


@pytest.fixture
def trained(monkeypatch):
    """The epochs that anybody trains, from 0."""
    found = []
    run = Pretraining.run_epoch
    monkeypatch.setattr(
        Pretraining, "run_epoch", lambda self: found.append(self.epoch) or run(self)
    )
    return found


def shared(workspace, cache_dir, **options):
    config = config_of(batch_size=40)
    return SharedPretraining(config, workspace.dataset, cache_dir, CPU, rungs=RUNGS, **options)


def weights(cache_dir, each):
    return load_file(weights_file(cache_dir, each.key))


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def by_hand(workspace, cache_dir, epochs):
    """The accuracy of a pretraining that is trained apart, by scikit-learn."""
    config, dataset = config_of(batch_size=40), workspace.dataset
    backbone = starting_backbone(config)
    images = images_without_labels(dataset)
    training = Pretraining(config, backbone, images, cache_dir / "apart", key="", device=CPU)
    for _ in range(epochs):
        training.run_epoch()
    labels = np.asarray(dataset.pool.labels)
    train, validation = dataset.train_index, dataset.validation_index
    voters = KNeighborsClassifier(
        20, metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.1)
    )
    voters.fit(training.features(dataset.pool, train), labels[train])
    return voters.score(training.features(dataset.pool, validation), labels[validation])


def test_nobody_removes_a_pretraining_that_goes_on(tmp_path, workspace, monkeypatch):
    listed = []
    run = Pretraining.run_epoch

    def watched(self):
        record = run(self)
        [entry] = [each for each in entries(tmp_path) if each.path.suffix == ".unfinished"]
        listed.append((entry.state, remove(entry)))
        os.utime(f"{entry.path}.json", (0, 0))
        return record

    monkeypatch.setattr(Pretraining, "run_epoch", watched)
    shared(workspace, tmp_path).accuracy(1)
    assert listed == [("in use", False)]
    # Once it pauses, it was used at its last epoch.
    [entry] = [each for each in entries(tmp_path) if each.path.suffix == ".unfinished"]
    assert entry.state == "free"
    assert entry.used > time.time() - 600
    assert remove(entry)


def test_trials_report_the_same_values_and_one_of_them_trains(tmp_path, workspace, trained):
    first, second = (shared(workspace, tmp_path) for _ in range(2))
    values = [first.accuracy(1)]
    assert trained == [0]
    # Another trial takes what is there, and goes on where the first one was stopped.
    assert second.accuracy(1) == values[0]
    values.append(second.accuracy(2))
    assert trained == [0, 1]
    assert [first.accuracy(epoch) for epoch in RUNGS] == values
    first.finish()
    assert trained == [0, 1]
    for epochs, value in zip(RUNGS, values, strict=True):
        assert value == pytest.approx(by_hand(workspace, tmp_path, epochs), abs=1e-6)
    # Without rungs it would have had the same bits.
    alone = shared(workspace, tmp_path / "alone")
    alone.finish()
    assert same(weights(tmp_path, first), weights(tmp_path / "alone", alone))
    # What was judged later than it was trained: the end alone.
    assert alone.accuracy(1) is None
    assert alone.accuracy(2) == values[1]
    assert not list((tmp_path / "pretrained").glob("*.unfinished"))


def test_an_interrupt_keeps_finished_epochs(tmp_path, workspace, trained):
    stopped = shared(workspace, tmp_path, asked_to_stop=lambda: len(trained) == 1)
    with pytest.raises(PretrainingStopped):
        stopped.finish()
    assert trained == [0]
    # It stands where the rung is, which was not judged yet.
    again = shared(workspace, tmp_path)
    assert again.accuracy(1) is not None
    again.finish()
    assert trained == [0, 1]


def test_a_training_takes_the_weights_that_its_rungs_have_trained(tmp_path, workspace, trained):
    config = config_of(batch_size=40)
    training = config.training.model_copy(update={"pretrain": True})
    learned = config.model_copy(update={"training": training})
    own = SharedPretraining(learned, workspace.dataset, tmp_path, CPU, rungs=RUNGS)
    own.accuracy(1)
    backbone = Workspace(workspace.dataset, tmp_path, CPU).backbone(learned)
    assert trained == [0, 1]
    assert same(weights(tmp_path, own), backbone.model.state_dict())


def test_another_node_goes_on_where_the_first_one_has_stopped(tmp_path, workspace, trained):
    storage = open_storage(str(tmp_path / "storage"), create=True)
    cache = StoredCache(storage, beat_seconds=0.1)
    use_shared_cache(cache)
    try:
        value = shared(workspace, tmp_path / "one").accuracy(1)
        cache.settle()
        other = shared(workspace, tmp_path / "other")
        assert other.accuracy(1) == value
        assert trained == [0]
        other.finish()
        assert trained == [0, 1]
        cache.settle()
    finally:
        use_shared_cache(None)
    alone = shared(workspace, tmp_path / "alone")
    alone.finish()
    assert same(weights(tmp_path / "other", other), weights(tmp_path / "alone", alone))


def test_too_little_memory_is_not_tried_twice_and_names_the_key(tmp_path, workspace, monkeypatch):
    tried = []

    def full(self):
        tried.append(self.epoch)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Pretraining, "run_epoch", full)
    own = shared(workspace, tmp_path)
    with pytest.raises(UserError, match=r"^pretrain\.batch_size: out of memory \(CUDA out of"):
        with_half_batches(lambda pieces: own.finish(), 1)
    config = config_of(batch_size=40)
    training = config.training.model_copy(update={"pretrain": True})
    learned = config.model_copy(update={"training": training})
    plain = Workspace(workspace.dataset, tmp_path / "plain", CPU)
    with pytest.raises(UserError, match=r"^pretrain\.batch_size: out of memory"):
        with_half_batches(lambda pieces: plain.backbone(learned), 1)
    assert tried == [0, 0]


def test_an_interrupt_while_weights_are_written_costs_no_epoch(
    tmp_path, workspace, trained, monkeypatch
):
    publish = building.publish

    def asked(temporary, path):
        if path.suffix == ".safetensors":
            raise KeyboardInterrupt
        publish(temporary, path)

    with monkeypatch.context() as patch:
        patch.setattr(building, "publish", asked)
        with pytest.raises(KeyboardInterrupt):
            shared(workspace, tmp_path).finish()
    shared(workspace, tmp_path).finish()
    assert trained == [0, 1]
    assert not list((tmp_path / "pretrained").glob("*.unfinished"))
