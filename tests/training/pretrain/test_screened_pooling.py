"""The pooling `screened`: a screening head in the file of a pretraining, used afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from gsfl_tune.bundles.architecture import Architecture
from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.models import create_backbone, create_pooling, has_screening
from gsfl_tune.training import Training
from gsfl_tune.training.pretrain.screening import unit_range
from gsfl_tune.training.pricing.problems import cost_problems
from tests.training.conftest import tiny_config
from tests.training.pretrain.conftest import seeded
from tests.training.pretrain.test_pretraining import finish, start
from tests.training.test_training import run

LCR = {"weight": 0.1, "channels": 4}


@pytest.fixture(scope="module")
def learned(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("screened")
    training = finish(start(folder, images, epochs=1, image_size=64, lcr=LCR))
    training.write(folder / "weights.safetensors")
    return training, folder / "weights.safetensors"


def config_with(weights, **model):
    model = {"backbone": "test_resnet", "weights": str(weights), "pooling": "screened", **model}
    return tiny_config(data={"image_size": 64}, model=model)


def test_it_weighs_the_places_of_a_map_by_the_largest_kernel():
    pooling = create_pooling("screened", 3)
    weight, bias = torch.randn(2, 3, generator=seeded()), torch.tensor([0.1, -0.2])
    pooling.take(weight, bias)
    maps = torch.randn(4, 3, 2, 5, generator=seeded(1))
    found = pooling(maps).double().numpy()
    for image, row in zip(maps.double().flatten(2).numpy(), found, strict=True):
        scores = np.maximum(0, weight.double().numpy() @ image + bias.numpy()[:, None]).max(0)
        places = (scores - scores.min()) / (scores.max() - scores.min())
        assert np.allclose(row, image @ (places / places.sum()), atol=1e-5)
    # Where no place differs it is the mean.
    flat = torch.ones(1, 3, 2, 5)
    assert torch.allclose(pooling(flat), torch.ones(1, 3))
    assert torch.allclose(create_pooling("screened", 3)(maps), maps.mean((2, 3)), atol=1e-6)


def test_it_is_what_the_pretraining_judges_as_screened(learned):
    training, file = learned
    backbone = create_backbone("test_resnet", str(file))
    images = torch.randn(6, 3, 64, 64, generator=seeded())
    pooling = create_pooling("screened", backbone.channels)
    pooling.take(*backbone.screening)
    network = training.network.eval()
    places = unit_range(network.screening(network.backbone(images)))
    assert float(places.detach().std()) > 0.1
    found = functional.normalize(pooling(backbone(images)), dim=1)
    assert torch.allclose(found, network.representation(images, screened=True), atol=1e-5)
    assert not torch.allclose(found, network.representation(images), atol=1e-2)


def test_weights_with_another_head_are_another_backbone(learned, tmp_path):
    _, file = learned
    backbone = create_backbone("test_resnet", str(file))
    again, other = (create_backbone("test_resnet", str(file)) for _ in range(2))
    assert again.digest == backbone.digest
    other.take_screening(backbone.screening[0] + 1, backbone.screening[1])
    assert other.digest != backbone.digest


def test_a_bundle_keeps_the_head(learned, workspace, tmp_path):
    config = config_with(learned[1])
    trained = run(Training(config, workspace, tmp_path))
    network = trained.trained_network()
    assert network.pooling.weight.shape == (4, network.backbone.channels)
    made = Architecture.of(config, network, workspace.dataset.class_count)
    rebuilt = made.build(network.inference_state())
    images = torch.randn(3, 3, 64, 64, generator=seeded())
    with torch.inference_mode():
        ours, theirs = network.eval()(images).logits, rebuilt(images).logits
    assert torch.equal(rebuilt.pooling.weight, network.pooling.weight)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_features_are_not_those_of_the_mean(learned, workspace):
    screened = workspace.features(config_with(learned[1]))
    assert not torch.allclose(
        screened, workspace.features(config_with(learned[1], pooling="average"))
    )


def test_weights_without_a_head_are_refused(workspace, learned, images, tmp_path):
    with pytest.raises(UserError, match=r"model\.pooling: found screened.*no screening head"):
        workspace.features(config_with("none"))
    plain = finish(start(tmp_path, images, epochs=1))
    plain.write(tmp_path / "plain.safetensors")
    assert not has_screening(str(tmp_path / "plain.safetensors"))
    assert has_screening(str(learned[1]))


@pytest.mark.parametrize(
    ("model", "rest", "words"),
    [
        ("weights: none", "", ["model.weights none has no screening head"]),
        ("weights: FILE", "", []),
        ("weights: none", "training: {pretrain: true}\n", ["pretrain.lcr.weight is 0"]),
        (
            "weights: none",
            "training: {pretrain: true}\npretrain: {lcr: {weight: 0.01}}\n",
            [],
        ),
    ],
)
def test_check_says_where_there_is_no_head(learned, model, rest, words):
    text = (
        "name: t\ndata: {source: typefaces, image_size: 64}\n"
        f"model: {{backbone: test_resnet, pooling: screened, {model}}}\n{rest}"
    )
    problems = cost_problems(Experiment.parse(text.replace("FILE", str(learned[1]))))
    found = [str(each) for each in problems if each.path == "model.pooling"]
    assert len(found) == bool(words)
    assert all(word in found[0] for word in words)
