"""A small real network with random weights, and the bundle of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gsfl_tune.data import prepare
from gsfl_tune.experiment.config import Config
from gsfl_tune.export import bundle_from_network, write_best_training
from gsfl_tune.models import (
    AttentionSettings,
    BilinearAttention,
    Granularities,
    GranularitySettings,
    GsflHead,
    Network,
    PartDetector,
    PartSettings,
    PlainHead,
    Projection,
    Recurrence,
    RecurrentAttention,
    create_backbone,
    create_pooling,
    layers_of,
    map_shape,
    pooling_class,
)
from gsfl_tune.run import RunDirectory
from gsfl_tune.training import Training, Workspace
from tests.once import once

CLASSES = ["ant", "bee", "cat", "dog", "eel", "fox"]
GROUPS = [0, 0, 1, 1, 2, 1]
SIDE = 37
METRICS = {
    "winner": {
        "test": {
            "accuracy": {"mean": 0.5, "std": 0.02, "values": [0.48, 0.5, 0.52]},
            "nll": {"mean": 1.25, "std": 0.1, "values": [1.2, 1.2, 1.35]},
        }
    },
    "control": {
        "test": {
            "accuracy": {"mean": 0.45, "std": 0.0, "values": [0.45]},
            "nll": {"mean": 1.5, "std": 0.0, "values": [1.5]},
        }
    },
    "difference": {
        "metric": "test/accuracy",
        "mean": 0.05,
        "interval": {"low": -0.01, "high": 0.11, "level": 0.95, "method": "paired bootstrap"},
    },
}


def make_config(
    snr: bool = False,
    recurrent: bool = False,
    parts: bool = False,
    attention: bool = False,
    granularities: bool = False,
    **model: object,
) -> Config:
    method = "recurrent_attention" if recurrent else "part_rcnn" if parts else "single"
    method = "counterfactual_attention" if attention else "pmg" if granularities else method
    return Config.model_validate(
        {
            "name": "zoo",
            "data": {"source": "typefaces", "image_size": 32},
            "model": {
                "backbone": "test_efficientnet",
                "weights": "none",
                "latent_dim": 24,
                **model,
            },
            "training": {
                "method": method,
                "finetune": {"epochs": int(snr or method != "single"), "snr": snr},
            },
        }
    )


def make_network(config: Config) -> Network:
    """Untrained, with weights such that images differ in their logits."""
    torch.manual_seed(3)
    reads = pooling_class(config.model.pooling).reads
    backbone = create_backbone(config.model.extractor, "none", reads=reads)
    if config.training.finetune.snr:
        backbone.restitute(1, config.data.image_size)
        for parameter in backbone.restitution.parameters():  # as if it had been trained
            torch.nn.init.normal_(parameter, 0.5)
    (channels, second), projection = (backbone.channels, backbone.second_channels), None
    if config.model.pooling_channels:
        sizes = [channels - second, second] if second else [channels]
        kept = config.model.pooling_channels
        weights = [torch.linalg.qr(torch.randn(size, kept))[0].T.contiguous() for size in sizes]
        projection = Projection(torch.block_diag(*weights), 0.1 * torch.randn(channels))
        channels, second = kept * len(sizes), kept if second else 0
    second = second if pooling_class(config.model.pooling).takes_streams else 0
    pooling = create_pooling(
        config.model.pooling,
        channels,
        dim=config.model.pooling_dim,
        power=config.model.gem_power,
        heads=config.model.attention_heads,
        second=second,
    )
    kind = GsflHead if config.model.head == "gsfl" else PlainHead
    head = kind(
        pooling.dim,
        len(CLASSES),
        latent_dim=config.model.latent_dim,
        dropout=0.3,
        feature_scale=config.model.feature_scale,
    )
    with torch.no_grad():
        head.classifier.weight.mul_(40)
    recurrent = None
    if config.training.method == "recurrent_attention":
        size = config.data.image_size
        shape = map_shape(backbone.name, size, backbone.reads)
        recurrent = RecurrentAttention(shape[0], Recurrence(steepness=2.0))
        for parameter in recurrent.parameters():  # as if it had been trained
            torch.nn.init.normal_(parameter, 0, 0.3)
    parts = None
    if config.training.method == "part_rcnn":
        size = config.data.image_size
        shape = map_shape(backbone.name, size, backbone.reads)
        parts = PartDetector(shape[0], PartSettings(3, head.feature_dim, 8))
        for parameter in parts.parameters():  # as if it had been trained
            torch.nn.init.normal_(parameter, 0, 0.5)
    attention = None
    if config.training.method == "counterfactual_attention":
        size = config.data.image_size
        shape = map_shape(backbone.name, size, backbone.reads)
        attention = BilinearAttention(shape[0], AttentionSettings(5, head.feature_dim, 8))
        for parameter in attention.parameters():  # as if it had been trained
            torch.nn.init.normal_(parameter, 0, 0.5)
    granularities = None
    if config.training.method == "pmg":
        layers = layers_of(backbone.name, 2, config.data.image_size, backbone.reads)
        channels = tuple(each.channels for each in layers)
        stops = tuple(each.stop for each in layers[1:])
        granularities = Granularities(GranularitySettings(channels, stops, 8, len(CLASSES)))
        for parameter in granularities.parameters():  # as if it had been trained
            torch.nn.init.normal_(parameter, 0, 0.3)
    further = recurrent, parts, attention, granularities
    return Network(backbone, projection, pooling, head, *further).eval()


@pytest.fixture(scope="session")
def config() -> Config:
    return make_config()


@pytest.fixture(scope="session")
def network(config) -> Network:
    torch.set_num_threads(1)  # small batches: more threads only get in each other's way
    return make_network(config)


@pytest.fixture
def bundle_path(tmp_path, config, network) -> Path:
    return bundle_from_network(
        tmp_path / "a bundle",
        network,
        config,
        classes=CLASSES,
        groups=GROUPS,
        side=SIDE,
        metrics=METRICS,
    )


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> list[Path]:
    """Eight images of different sizes: JPEG, PNG, grey, palette and with transparency."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    paths = []
    kinds = [("RGB", "jpg"), ("RGB", "png"), ("L", "png"), ("P", "png"), ("RGBA", "png")]
    for number in range(8):
        mode, suffix = kinds[number % len(kinds)]
        small = generator.integers(0, 256, size=(4, 5, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((60 + 9 * number, 55), Image.Resampling.BICUBIC)
        paths.append(folder / f"image {number}.{suffix}")
        image.convert(mode).save(paths[-1])
    return paths


RUN_DATA = {
    "source": "typefaces",
    "image_size": 32,
    "augment": {"flip": False},
    "typefaces": {"train": 12, "test": 4, "size": 40},
}


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> RunDirectory:
    """A run directory with the bundle of a small network that was really trained."""
    trained = once(tmp_path_factory, "trained-run", _train)
    # A copy for this process: what is done with a run locks it.
    return RunDirectory(shutil.copytree(trained, tmp_path_factory.mktemp("runs") / "run"))


def _train(folder: Path) -> None:
    torch.set_num_threads(1)
    content = {
        "name": "faces",
        "data": RUN_DATA,
        "model": {
            "backbone": "test_efficientnet",
            "weights": "none",
            "latent_dim": 32,
            "dropout": 0.0,
            "groups": {"count": 3, "method": "random"},
        },
        "training": {
            "device": "cpu",
            "head": {"epochs": 0},
            "finetune": {"epochs": 8, "learning_rate": 3e-3, "head_learning_rate": 3e-3},
        },
    }
    config = Config.model_validate(content)
    run = RunDirectory(folder)
    run.experiment_file.write_text(json.dumps(content))
    # A side that is not 1.15 times the image size: the preprocessing has something to resize.
    workspace = Workspace.open(config.data, side=40, cache_dir=folder / "cache")
    training = Training(config, workspace, run.path / "training", fit="train+validation")
    while not training.finished:
        training.run_epoch()
    network = training.trained_network()
    bundle_from_network(
        run.best,
        network,
        config,
        classes=workspace.dataset.classes,
        groups=[int(group) for group in training.groups],
        side=40,
        metrics={},
    )
    write_best_training(run.best_training, network, training.centers)
    shutil.rmtree(folder / "cache")


@pytest.fixture(scope="session")
def squares(trained_run, cache_dir) -> np.ndarray:
    """Decoded test images of the run."""
    config = Config.model_validate(json.loads(trained_run.experiment_file.read_text()))
    test = prepare(config.data, side=40, cache_dir=cache_dir).test
    return test.gather(np.arange(24))
