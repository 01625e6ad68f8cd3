"""Grad-CAM on images of which one small patch decides the class, and against the textbook."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gsfl_tune.evidence import NoMaps, activation_maps
from gsfl_tune.evidence.gradcam import (
    class_score,
    enlarged,
    group_directions,
    overlap,
    shared_score,
)
from gsfl_tune.evidence.trained import TrainedModel
from gsfl_tune.experiment.config import Config
from gsfl_tune.training import Training, Workspace

SIZE = 128
SIDE = 148  # what data of 128 px is decoded to
PATCH = 36


def patch(label: int) -> np.ndarray:
    """Stripes across, stripes along, or a chequerboard: black on white."""
    y, x = np.mgrid[:PATCH, :PATCH]
    return 255 * np.stack([(y // 4) % 2, (x // 4) % 2, (x // 6 + y // 6) % 2])[label]


@pytest.fixture(scope="module")
def patched(tmp_path_factory) -> Workspace:
    """Grey noise with one patch a picture; the name of the file says where."""
    base = tmp_path_factory.mktemp("patched")
    folder = base / "images"
    generator = np.random.default_rng(0)
    margin = (SIDE - SIZE) // 2
    for label in range(3):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(40):
            pixels = generator.normal(128, 12, (SIDE, SIDE))
            top, left = generator.integers(margin, margin + SIZE - PATCH, size=2)
            pixels[top : top + PATCH, left : left + PATCH] = patch(label)
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB")
            name = f"{number:02d}-{top - margin}-{left - margin}.png"
            image.save(folder / f"class{label}" / name)
    torch.set_num_threads(1)
    return Workspace.open(
        config_of(folder).data, cache_dir=base / "cache", device=torch.device("cpu")
    )


def config_of(folder: Path, **model: object) -> Config:
    return Config.model_validate(
        {
            "name": "patches",
            "data": {"source": "folder", "path": str(folder), "image_size": SIZE},
            "model": {
                "backbone": "tf_efficientnet_lite0",
                "weights": "package",
                "latent_dim": 32,
                "groups": {"count": 1, "method": "single"},
                **model,
            },
            "training": {
                "device": "cpu",
                "head": {"epochs": 25, "learning_rate": 0.01, "batch_size": 24},
            },
        }
    )


POOLINGS = [
    {},
    {"pooling": "bilinear", "pooling_channels": 24},
    {"pooling": "compact_bilinear", "pooling_channels": 24, "pooling_dim": 256},
]


@pytest.mark.parametrize("model", POOLINGS, ids=["average", "bilinear", "compact"])
def test_highlights_the_patch_that_decides(patched, tmp_path, model):
    folder = patched.cache_dir.parent / "images"
    config = config_of(folder, **model)
    training = Training(config, patched, tmp_path, fit="train+validation")
    while not training.finished:
        training.run_epoch()
    test = patched.dataset.test
    predictions = training.predict("test")
    assert predictions.correct.mean() > 0.8
    trained = TrainedModel(patched, config, training.trained_network(), finetuned=False)
    positions = np.flatnonzero(predictions.correct)
    heats = []
    for images in trained.images("test", positions):
        said = torch.from_numpy(test.labels[positions[len(heats) :][: len(images)]])
        (maps,) = activation_maps(trained.network, images, [class_score(said)])
        heats.extend(enlarged(maps, SIZE))
    hits, shares = [], []
    for position, heat in zip(positions, heats, strict=True):
        top, left = map(int, Path(test.paths[position]).stem.split("-")[1:])
        peak = np.unravel_index(heat.argmax(), heat.shape)
        centre = np.array([top, left]) + PATCH / 2
        # A position of the map is 32 pixels of the image.
        hits.append(np.abs(np.array(peak) - centre).max() <= 32)
        shares.append(heat[top : top + PATCH, left : left + PATCH].mean() / heat.mean())
    assert np.mean(hits) > 0.8
    assert np.mean(shares) > 2.0


def test_with_average_pooling_it_is_grad_cam_by_the_book(workspace, retrained):
    (model, *_) = retrained().models(workspace, 1)
    network = model.network
    (images,) = model.images("test", np.arange(6))
    classes = torch.tensor([0, 5, 3, 2, 20, 7])
    (found,) = activation_maps(network, images, [class_score(classes)])
    with torch.enable_grad():
        maps = network.backbone(images).detach().requires_grad_()
        logits = network.head.infer(network.pool(maps))
        (gradient,) = torch.autograd.grad(logits[torch.arange(6), classes].sum(), maps)
    weights = gradient.mean(dim=(2, 3))
    for row in range(6):
        expected = torch.einsum("c,chw->hw", weights[row], maps[row].detach()).relu()
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-4)


def test_the_shared_part_has_a_map_of_its_own(workspace, retrained):
    (model, *_) = retrained().models(workspace, 1)
    (images,) = model.images("test", np.arange(4))
    directions = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    scores = [class_score(torch.arange(4)), shared_score(directions)]
    discriminative, shared = activation_maps(model.network, images, scores)
    assert discriminative.shape == shared.shape == (4, 2, 2)
    assert (shared >= 0).all()
    assert not torch.allclose(discriminative, shared)
    assert np.abs(overlap(discriminative, shared)).max() < 1.0
    np.testing.assert_allclose(overlap(shared, shared), 1.0)


def test_one_position_is_no_map(workspace, retrained):
    (model, *_) = retrained().models(workspace, 1)
    with pytest.raises(NoMaps, match="one position"):
        activation_maps(model.network, torch.zeros(1, 3, 32, 32), [class_score(torch.zeros(1))])


def test_directions_lead_from_the_mean_to_each_group():
    generator = np.random.default_rng(0)
    shared, groups = generator.normal(size=(50, 6)), np.arange(50) % 3
    found = group_directions(shared, groups, 4)
    for group in range(3):
        direction = shared[groups == group].mean(axis=0) - shared.mean(axis=0)
        np.testing.assert_allclose(
            found[group], direction / np.linalg.norm(direction), rtol=1e-5, atol=1e-6
        )
    assert not found[3].any(), "a group without images has no direction"
    single = group_directions(shared, np.zeros(50, np.int64), 1)
    mean = shared.mean(axis=0)
    np.testing.assert_allclose(single[0], mean / np.linalg.norm(mean), rtol=1e-5)


def test_enlarged_maps_reach_one_unless_nothing_speaks():
    maps = torch.zeros(2, 3, 3)
    maps[0, 1, 2] = 5.0
    large = enlarged(maps, 30)
    assert large.max() == pytest.approx(1.0)
    assert large[0, 15, 25] == pytest.approx(1.0)
    assert not large[1].any()
