"""Class weights, balanced sampling and few shots, through real trainings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from gsfl_tune.evidence import measure_probe
from gsfl_tune.training import Training, Workspace

from .checks import check_cached_as_whole
from .conftest import tiny_config
from .test_training import run, state_of

SIZES = {"rare": 8, "frequent": 56, "other": 24}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes that differ by less than images of one class do."""
    root, random = tmp_path_factory.mktemp("unequal"), np.random.default_rng(0)
    for place, (name, count) in enumerate(SIZES.items()):
        (root / name).mkdir()
        for number in range(count):
            pixels = random.normal(118 + 6 * place, 40, (40, 40, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


def opened(photos, tmp_path, **data):
    config = tiny_config(data={"source": "folder", "path": str(photos), **data})
    return Workspace.open(config.data, cache_dir=tmp_path / "cache", device=torch.device("cpu"))


def on(photos, **changes):
    changes["data"] = {"source": "folder", "path": str(photos)} | changes.get("data", {})
    changes["model"] = {"groups": {"count": 2}} | changes.get("model", {})
    return tiny_config(**changes)


def test_weights_and_sampling_make_a_rare_class_be_found(photos, tmp_path):
    workspace = opened(photos, tmp_path)
    rates = {}
    for name, changes in {
        "plain": {},
        "weights": {"loss": {"class_weights": 1.0}},
        "sampling": {"training": {"balanced_sampling": 1.0}},
        "adjusted": {"loss": {"logit_adjustment": 1.0}},
    }.items():
        head = {"epochs": 12, "learning_rate": 0.003}
        changes = {**changes, "training": {**changes.get("training", {}), "head": head}}
        training = run(Training(on(photos, **changes), workspace, tmp_path / name))
        logits = torch.from_numpy(training.predict("validation").logits)
        rare = workspace.dataset.classes.index("rare")
        rates[name] = float(functional.softmax(logits, 1)[:, rare].mean())
    # A model that cannot tell the classes apart answers by how often it was shown them.
    assert rates["plain"] < 0.2
    assert rates["weights"] > 1.5 * rates["plain"]
    assert rates["sampling"] > 1.5 * rates["plain"]
    assert rates["adjusted"] > 1.5 * rates["plain"]


@pytest.mark.parametrize("how", ["loss", "training"])
def test_the_cache_trains_as_the_whole_network_does(photos, tmp_path, monkeypatch, how):
    keys = {
        "loss": {"class_weights": 0.5, "logit_adjustment": 0.5, "focal": 1.0},
        "training": {"balanced_sampling": 0.7},
    }[how]
    finetune = {"epochs": 2, "batch_size": 12, "blocks": 2, "optimizer": "sgd"}
    changes = {
        "data": {"views": 2},
        "training": {"head": {"epochs": 0}, "finetune": finetune | {"learning_rate": 1e-3}},
    }
    changes[how] = {**changes.get(how, {}), **keys}
    settings = on(photos, **changes)
    workspace = opened(photos, tmp_path)
    check_cached_as_whole(settings, workspace, tmp_path, monkeypatch)


def test_pieces_of_a_batch_weigh_what_the_batch_does(photos, tmp_path):
    settings = on(
        photos,
        model={"dropout": 0.0},
        loss={"class_weights": 1.0, "logit_adjustment": 1.0, "focal": 2.0},
        training={"head": {"epochs": 2, "batch_size": 15, "optimizer": "sgd"}},
    )
    workspace = opened(photos, tmp_path)
    whole = run(Training(settings, workspace, tmp_path / "whole"))
    halves = run(Training(settings, workspace, tmp_path / "halves", pieces=2))
    torch.testing.assert_close(
        state_of(halves)["module"], state_of(whole)["module"], rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("method", ["kmeans", "spectral", "agglomerative"])
def test_one_image_of_each_class_is_enough_for_everything(photos, tmp_path, method):
    workspace = opened(photos, tmp_path, shots=1)
    settings = on(photos, data={"shots": 1}, model={"groups": {"method": method}})
    final = Training(settings, workspace, tmp_path / "final", fit="train+validation")
    seen = workspace.dataset.pool.labels[final.context.train_positions.numpy()]
    assert np.bincount(seen).tolist() == [1, 1, 1]
    run(final)
    assert np.isfinite(final.predict("test").logits).all()


def test_the_probe_sees_the_shots_alone(photos, tmp_path):
    few = measure_probe(opened(photos, tmp_path, shots=2), on(photos, data={"shots": 2}))
    more = measure_probe(opened(photos, tmp_path), on(photos))
    # Fitted on both parts it would know what the validation images are.
    few_right = (few.validation_logits.argmax(1) == few.validation_labels).mean()
    assert few_right < 1
    assert not np.allclose(few.probe.weights, more.probe.weights)
    again = few.probe.logits(
        opened(photos, tmp_path, shots=2).features(on(photos, data={"shots": 2})).numpy()
    )
    validation = opened(photos, tmp_path, shots=2).dataset.validation_index
    assert np.allclose(again[validation], few.validation_logits, atol=1e-4)
