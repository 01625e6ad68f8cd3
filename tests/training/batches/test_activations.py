"""Activations of the frozen part: computed once, shared, and no different from running it."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from gsfl_tune.data.augment import center_crop
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import Backbone, CannotCut
from gsfl_tune.training import Training, Workspace
from tests.training.conftest import tiny_config
from tests.training.test_training import assert_equal_states, run, state_of, without_seconds


def config(**changes):
    finetune = {"epochs": 2, "batch_size": 24, "blocks": 2} | changes.pop("finetune", {})
    training = {"head": {"epochs": 0}, "finetune": finetune} | changes.pop("training", {})
    return tiny_config(data={"views": changes.pop("views", 2)}, training=training, **changes)


@pytest.fixture
def fresh(workspace, tmp_path):
    """The same data with an empty cache."""
    return Workspace(workspace.dataset, tmp_path / "cache", torch.device("cpu"))


def built(workspace):
    folder = workspace.cache_dir / "prefix"
    found = folder.glob("*.npy") if folder.exists() else ()
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in found}


def test_the_cache_trains_as_the_whole_network_does(fresh, tmp_path, monkeypatch, caplog):
    # AdamW would make steps of full size out of gradients that are nothing but rounding.
    settings = config(finetune={"optimizer": "sgd", "learning_rate": 1e-3})
    cached = run(Training(settings, fresh, tmp_path / "cached"))
    assert len(built(fresh)) == 3  # two views and the centre

    def refuse(self, image_size):
        raise CannotCut("no place to cut")

    monkeypatch.setattr(Backbone, "split", refuse)
    with caplog.at_level(logging.WARNING, logger="gsfl_tune.training"):
        whole = run(Training(settings, fresh, tmp_path / "whole"))
    assert "no place to cut" in caplog.text
    assert len(cached.log.read()) == 2
    for ours, theirs in zip(cached.log.read(), whole.log.read(), strict=True):
        assert ours.keys() - {"cache_seconds"} == theirs.keys() - {"cache_seconds"}
        for key in ("train/loss", "train/cross_entropy", "validation/nll"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-5)
    trained = cached.trained_network().state_dict()
    for name, tensor in whole.trained_network().state_dict().items():
        assert torch.allclose(trained[name].float(), tensor.float(), rtol=1e-3, atol=1e-5), name


def test_of_the_pool_only_validation_images_are_computed_as_they_are(fresh, tmp_path):
    training = run(Training(config(), fresh, tmp_path))
    sizes = sorted(len(np.load(fresh.cache_dir / "prefix" / name)) for name in built(fresh))
    pool, held = fresh.dataset.pool, fresh.dataset.validation_index
    assert sizes == [len(held), len(pool), len(pool)]
    index = np.concatenate([held[-2:], fresh.dataset.train_index[:3], held[:1]])
    features = training.trained_features("pool", index)
    sizes = sorted(len(np.load(fresh.cache_dir / "prefix" / name)) for name in built(fresh))
    assert sizes == sorted([len(index), len(held), len(pool), len(pool)])
    alone = training.trained_features("pool", held)
    assert len(built(fresh)) == 4
    assert torch.allclose(features[:2], alone[-2:], atol=1e-6)
    assert torch.allclose(features[5], alone[0], atol=1e-6)


@pytest.mark.parametrize("ema", [pytest.param(0.0, marks=pytest.mark.slow), 0.8])
def test_resuming_equals_never_having_stopped(fresh, tmp_path, ema):
    settings = config(training={"head": {"epochs": 1}, "ema": ema})
    whole = run(Training(settings, fresh, tmp_path / "whole"))
    first = Training(settings, fresh, tmp_path / "parts")
    for _ in range(2):
        first.run_epoch()
    first.save()
    second = Training(settings, fresh, tmp_path / "parts")
    assert second.restore()
    run(second)
    assert_equal_states(state_of(whole), state_of(second))
    assert without_seconds(whole.log.read()) == without_seconds(second.log.read())


def test_what_is_exported_predicts_what_the_cache_predicts(fresh, tmp_path):
    training = run(Training(config(training={"ema": 0.5}), fresh, tmp_path))
    assert len(built(fresh)) == 3
    predictions = training.predict("test").logits
    assert len(built(fresh)) == 4  # test images only when they are asked for
    network = training.trained_network()
    squares = torch.from_numpy(fresh.dataset.test.gather(np.arange(8)))
    with torch.inference_mode():
        logits = network.infer(center_crop(squares, 32, *network.backbone.preprocessing))
    assert np.allclose(logits.numpy(), predictions[:8], atol=1e-5)
    pretrained = fresh.backbone(config()).state_dict()
    trained = network.backbone.state_dict()
    changed = [name for name in trained if not torch.equal(trained[name], pretrained[name])]
    assert changed
    assert not any(name.startswith(("model.conv_stem", "model.blocks.0")) for name in changed)


def test_trials_share_the_cache_and_more_views_only_add(fresh, tmp_path):
    Training(config(), fresh, tmp_path / "a").run_epoch()
    before = built(fresh)
    other = config(
        finetune={"learning_rate": 0.01, "optimizer": "sgd"}, model={"head": "plain"}, views=2
    )
    Training(other, Workspace(fresh.dataset, fresh.cache_dir), tmp_path / "b").run_epoch()
    assert built(fresh) == before
    Training(config(), fresh, tmp_path / "final", fit="train+validation").run_epoch()
    assert built(fresh) == before
    Training(config(views=3), fresh, tmp_path / "c").run_epoch()
    more = built(fresh)
    assert len(more) == len(before) + 1
    assert before.items() <= more.items()


@pytest.mark.parametrize(
    "changes",
    [{"finetune": {"blocks": 1}}, {"data": {"augment": {"scale": 0.5}}}],
    ids=["blocks", "augmentation"],
)
def test_what_changes_activations_changes_the_key(fresh, tmp_path, changes):
    Training(config(), fresh, tmp_path / "a").run_epoch()
    before = built(fresh)
    data = changes.pop("data", {})
    settings = config(**changes)
    settings = tiny_config(
        data={"views": 2, **data}, training=settings.training.model_dump(mode="json")
    )
    Training(settings, fresh, tmp_path / "b").run_epoch()
    assert len(built(fresh)) >= len(before) + 2


def test_half_precision_takes_half_the_space_and_trains_alike(fresh, tmp_path):
    full = run(Training(config(), fresh, tmp_path / "full"))
    large = sum(size for _, size in built(fresh).values())
    half = run(Training(config(training={"cache_precision": "fp16"}), fresh, tmp_path / "half"))
    both = sum(size for _, size in built(fresh).values())
    assert both - large == pytest.approx(large / 2, rel=0.01)
    for ours, theirs in zip(half.log.read(), full.log.read(), strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=0.01)


def test_activations_beyond_half_precision_are_refused(fresh, tmp_path):
    settings = config(training={"cache_precision": "fp16"})
    with torch.no_grad():
        next(fresh.backbone(settings).parameters()).mul_(1e9)
    with pytest.raises(UserError, match=r"cache_precision.*fp16.*allowed: fp32"):
        Training(settings, fresh, tmp_path).run_epoch()
    assert built(fresh) == {}


def test_all_blocks_or_fresh_augmentation_cache_nothing(fresh, tmp_path):
    Training(config(finetune={"blocks": "all"}), fresh, tmp_path / "a").run_epoch()
    Training(config(views=0), fresh, tmp_path / "b").run_epoch()
    assert built(fresh) == {}
