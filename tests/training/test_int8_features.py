"""Features in int8: near those in fp32, calibrated on training images, refused with a reason."""

from __future__ import annotations

import logging

import pytest
import torch

from gsfl_tune.data import DecodedImages
from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import int8_forward, onnxruntime_forward
from gsfl_tune.training import Workspace, fit_precision, precision

from .conftest import tiny_config

INT8 = {"model": {"feature_precision": "int8"}}
CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(
    bool(onnxruntime_forward.missing_packages()), reason="needs the extra `export`"
)


@pytest.fixture(scope="module")
def own(workspace, tmp_path_factory) -> Workspace:
    """The data of the other tests, with a cache of its own."""
    return Workspace(workspace.dataset, tmp_path_factory.mktemp("int8"), CPU)


@pytest.fixture(scope="module")
def anew(own, tmp_path_factory) -> tuple[Workspace, set[int]]:
    """The same images once more, and which of them were seen to fit the numbers."""
    seen = set()
    gather = DecodedImages.gather

    def counted(images, index, *args, **kwargs):
        assert images is own.dataset.pool
        seen.update(int(each) for each in index)
        return gather(images, index, *args, **kwargs)

    place = Workspace(own.dataset, tmp_path_factory.mktemp("anew"), CPU)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(DecodedImages, "gather", counted)
        place.extractor(tiny_config(**INT8))
    return place, seen


def experiment(tmp_path, precision="int8", training="{device: cpu}"):
    file = tmp_path / "t.yaml"
    file.write_text(
        "name: t\ndata: {source: typefaces, image_size: 32}\n"
        "model: {backbone: test_efficientnet, weights: none, "
        f"feature_precision: {precision}}}\ntraining: {training}\n"
    )
    return Experiment.load(file)


def test_they_are_near_and_are_the_same_every_time(own, anew):
    expected = own.features(tiny_config()).clone()
    found = own.features(tiny_config(**INT8)).clone()
    distance = (found - expected).norm(dim=1)
    assert 1e-4 < distance.max() < 0.3
    again = anew[0].features(tiny_config(**INT8))
    torch.testing.assert_close(again, found, atol=1e-5, rtol=0)


def test_their_key_is_their_own_and_changes_with_the_training_images(own, tmp_path):
    pool, full, low = own.dataset.pool, tiny_config(), tiny_config(**INT8)
    keys = {own.extractor(each).key(pool) for each in (full, low)}
    other = Workspace(own.dataset, own.cache_dir, CPU).extractor(low)
    assert other.key(pool) in keys
    other.prepare(pool, own.dataset.train_index[1:], tmp_path)
    assert other.key(pool) not in keys


def test_only_training_images_are_seen(own, anew):
    _, seen = anew
    assert seen
    assert seen <= set(own.dataset.train_index.tolist())


@pytest.mark.slow
def test_what_is_too_far_off_is_told_and_not_used(own, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(int8_forward, "INT8_TOLERANCE", 0.0)
    place = Workspace(own.dataset, tmp_path, CPU)
    with caplog.at_level(logging.WARNING):
        extractor = place.extractor(tiny_config(**INT8))
    assert "its numbers differ from PyTorch's by" in extractor.refused
    assert "int8 is not used, features are computed in fp32: its numbers" in caplog.messages[0]
    pool = own.dataset.pool
    assert extractor.key(pool) == place.extractor(tiny_config()).key(pool)
    assert torch.equal(place.features(tiny_config(**INT8)), place.features(tiny_config()))
    given, chosen = fit_precision.fit_precision(experiment(tmp_path), place, known=None, alone=True)
    assert given.values("model.feature_precision") == ["int8"]
    assert chosen.precision == "fp32"
    assert "differ from PyTorch's" in chosen.to_json()["refused"]["int8"]
    assert chosen.lines() == [
        f"model.feature_precision: int8 is not used, features are in fp32: {extractor.refused}"
    ]


def test_what_was_asked_for_is_in_the_run(own, tmp_path):
    _, chosen = fit_precision.fit_precision(experiment(tmp_path), own, known=None, alone=True)
    assert (chosen.precision, chosen.reason) == ("int8", "as the experiment says")
    assert chosen.lines() == []


def test_a_gpu_or_missing_packages_refuse_it(own, tmp_path, monkeypatch):
    gpu = Workspace(own.dataset, tmp_path, torch.device("cuda"))
    with pytest.raises(UserError, match=r"found int8, but the images run on a GPU \(cuda\)"):
        gpu.extractor(tiny_config(**INT8))
    fit_precision.refuse_unfit_precision(experiment(tmp_path))
    monkeypatch.setattr(onnxruntime_forward, "find_spec", lambda name: None)
    with pytest.raises(ExperimentError, match=r"t.yaml:3: model.feature_precision: found int8"):
        fit_precision.refuse_unfit_precision(experiment(tmp_path))
    with pytest.raises(UserError, match=r"pip install 'gsfl-tune\[export\]'; allowed without"):
        own.extractor(tiny_config(**INT8))
    fit_precision.refuse_unfit_precision(experiment(tmp_path, "fp32"))


def test_activations_in_front_of_trained_blocks_are_those_of_auto(own):
    def low(asked, training):
        config = tiny_config(
            model={"feature_precision": asked},
            training={"precision": training, "finetune": {"epochs": 1, "blocks": 1}},
        )
        return precision.prefix_uses_bf16(config, own.backbone(config), CPU, own.cache_dir)

    for training in ("fp32", "bf16"):
        assert low("int8", training) == low("auto", training)
