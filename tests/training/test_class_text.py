"""`model.classifier_init: class_text` in real trainings."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gsfl_tune.experiment import UserError
from gsfl_tune.training import Training, Workspace, class_text

from .checks import check_resumes
from .conftest import tiny_config
from .test_training import assert_equal_states, run, state_of

STAGES = {"head": {"epochs": 2, "batch_size": 16}, "finetune": {"epochs": 1, "batch_size": 24}}
# The one text of a class is the mean of all its images in another space: they are planted.
SIZE = 12


@pytest.fixture(scope="module")
def planted(workspace, tmp_path_factory):
    """A workspace of one image a class whose file of embeddings knows the classes."""
    file = tmp_path_factory.mktemp("texts") / "texts.npy"
    config = tiny_config()
    features, pool = workspace.features(config).numpy(), workspace.dataset.pool
    count = workspace.dataset.class_count
    means = np.stack([features[pool.labels == label].mean(0) for label in range(count)])
    centred = means - means.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    np.save(file, centred @ axes[:SIZE].T)
    data = tiny_config(data={"shots": 1, "class_text": str(file)}).data
    return Workspace.open(data, cache_dir=workspace.cache_dir, device=torch.device("cpu")), data


def configured(data, head="linear", init="class_text", **changes):
    model = {"head": head, "classifier_init": init, "dropout": 0.0, "latent_dim": 64}
    config = tiny_config(model=model, **changes)
    return config.model_copy(update={"data": data})


@pytest.mark.parametrize("head", ["linear", "plain", "gsfl"])
def test_it_starts_with_what_texts_know(workspace, planted, tmp_path, head):
    few, data = planted
    features, labels = workspace.features(tiny_config()), workspace.dataset.pool.labels
    found, others = {}, {}
    for init in ("random", "class_text"):
        config = configured(data, head, init)
        started = Training(config, few, tmp_path / init).head.eval()
        with torch.inference_mode():
            chosen = started.infer(features).argmax(1).numpy()
        found[init] = float((chosen == labels).mean())
        state = started.state_dict()
        others[init] = {name: each for name, each in state.items() if "classifier" not in name}
    # By chance one of 21 is right.
    assert found["class_text"] > found["random"] + 0.1
    # Nothing else begins in another way.
    assert_equal_states(others["random"], others["class_text"])


def test_resuming_equals_never_having_stopped(planted, tmp_path):
    workspace, data = planted
    config = configured(data, "gsfl", training=STAGES)
    whole = check_resumes(config, workspace, tmp_path, stop_after=1)
    other = configured(data, "gsfl", "random", training=STAGES)
    random = run(Training(other, workspace, tmp_path / "random"))
    key = "head.classifier.weight"
    assert not torch.equal(state_of(whole)["module"][key], state_of(random)["module"][key])
    assert whole._fingerprint != random._fingerprint


def test_weights_are_known_by_their_content(workspace, tmp_path, monkeypatch):
    """Two files of equal size and time are not the same weights."""

    def embed(texts, name, weights):
        return np.full((len(texts), 2), float(weights.read_text()), np.float32)

    monkeypatch.setattr(class_text, "embed_texts", embed)
    texts = ["a", "b"]
    dataset = SimpleNamespace(class_embeddings=None, class_texts=texts, class_count=2)
    place = SimpleNamespace(dataset=dataset, cache_dir=tmp_path / "cache")
    found = []
    for content in ("1", "2"):
        file = tmp_path / f"{content}.pt"
        file.write_text(content)
        os.utime(file, (1, 1))
        data = tiny_config().data.model_copy(
            update={"text_model": "RN50", "text_weights": str(file)}
        )
        config = tiny_config().model_copy(update={"data": data})
        found.append(class_text.class_embeddings(config, place)[0, 0])
    assert found == [1, 2]


def test_texts_without_a_tower_are_refused(workspace, tmp_path):
    config = tiny_config(model={"classifier_init": "class_text"})
    with pytest.raises(UserError, match=r"model\.classifier_init: found class_text, but"):
        Training(config, workspace, tmp_path)
