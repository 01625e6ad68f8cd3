"""A network that was really trained on directions of stripes, and stripes of another camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gsfl_tune.experiment.config import Config
from gsfl_tune.export import bundle_from_network
from gsfl_tune.training import Training, Workspace
from tests.once import once

DIRECTIONS = {"falling": 135, "flat": 0, "rising": 45, "upright": 90}
SIDE = 40


def stripes(angle: float, random: np.random.Generator, *, other: bool = False) -> Image.Image:
    """Draws stripes; those of the other camera are pale, noisy and of low contrast."""
    y, x = np.mgrid[:SIDE, :SIDE]
    turned = np.deg2rad(angle + random.normal(0, 10))
    waves = 2 * np.pi * random.uniform(0.08, 0.16)
    along = x * np.sin(turned) + y * np.cos(turned)
    levels = 0.5 + 0.5 * np.sin(waves * along + random.uniform(0, 2 * np.pi))
    pixels = 204 * levels[..., None] * random.uniform(0.5, 1, 3)
    pixels = pixels + random.normal(0, 10, (SIDE, SIDE, 3))
    if other:
        pixels = 100 + 0.25 * pixels + random.normal(0, 15, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_stripes(folder: Path, count: int, seed: int, *, other: bool = False) -> Path:
    """Writes ``folder/CLASS/NUMBER.png``."""
    random = np.random.default_rng(seed)
    for name, angle in DIRECTIONS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            stripes(angle, random, other=other).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def stripes_home(tmp_path_factory) -> Path:
    """``bundle``, and images of the other camera: ``target`` (as in classes) and ``judge``."""
    return once(tmp_path_factory, "stripes", _train)


def _train(home: Path) -> None:
    torch.set_num_threads(1)
    write_stripes(home / "source" / "train", 24, 0)
    write_stripes(home / "source" / "test", 2, 1)
    write_stripes(home / "target", 20, 2, other=True)
    write_stripes(home / "judge", 20, 3, other=True)
    content = {
        "name": "stripes",
        "data": {
            "source": "folder",
            "path": str(home / "source"),
            "image_size": 32,
            "augment": {"flip": False, "scale": 0.6},
        },
        "model": {
            "backbone": "test_efficientnet",
            "weights": "none",
            "latent_dim": 16,
            "dropout": 0.0,
            "groups": {"count": 2, "method": "random"},
        },
        "training": {
            "device": "cpu",
            "head": {"epochs": 0},
            "finetune": {
                "epochs": 8,
                "batch_size": 16,
                "learning_rate": 3e-3,
                "head_learning_rate": 3e-3,
            },
        },
    }
    config = Config.model_validate(content)
    workspace = Workspace.open(config.data, side=SIDE, cache_dir=home / "cache")
    training = Training(config, workspace, home / "training", fit="train+validation")
    while not training.finished:
        training.run_epoch()
    bundle_from_network(
        home / "bundle",
        training.trained_network(),
        config,
        classes=workspace.dataset.classes,
        groups=[int(group) for group in training.groups],
        side=SIDE,
        metrics={"winner": {"test": {"accuracy": {"mean": 0.9, "std": 0.0, "values": [0.9]}}}},
    )
