"""Images of the finetune stage that grow: `training.finetune.start_size`."""

from __future__ import annotations

import pytest
import torch

from gsfl_tune.cli import main
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.training import Training
from gsfl_tune.training.image_sizes import growing_sizes, training_sizes

from .checks import check_resumes
from .conftest import tiny_config
from .test_tuning import FINETUNE, assert_close, check_exported, cosine, plain_loop, run, weights


def config(size=64, backbone="test_efficientnet", views=0, ema=0.0, **finetune) -> Config:
    return tiny_config(
        data={"image_size": size, "views": views},
        model={"head": "linear", "backbone": backbone},
        training={
            "ema": ema,
            "head": {"epochs": 0},
            "finetune": {**FINETUNE, "epochs": 3, "start_size": 0.5, **finetune},
        },
    )


@pytest.mark.parametrize(
    ("backbone", "start", "whole", "epochs", "expected"),
    [
        ("test_efficientnet", 0.5, 128, 3, (64, 96, 128)),
        ("resnet18", 128 / 224, 224, 4, (128, 160, 192, 224)),
        ("resnet18", 0.6, 224, 8, (128, 160, 160, 160, 192, 192, 224, 224)),
        ("vit_small_patch14_dinov2", 0.5, 56, 3, (28, 42, 56)),
        ("test_vit", 0.25, 64, 4, (16, 32, 48, 64)),
        ("resnet18", 0.5, 224, 1, (224,)),
        ("resnet18", 1.0, 224, 3, (224, 224, 224)),
        ("resnet18", 0.25, 48, 2, (16, 48)),
    ],
)
def test_sides_grow_by_what_a_position_covers(backbone, start, whole, epochs, expected):
    assert growing_sizes(backbone, start, whole, epochs) == expected


@pytest.mark.parametrize("blocks", ["all", 2])
def test_an_epoch_sees_what_a_training_of_its_size_sees(workspace, tmp_path, blocks):
    growing = Training(config(blocks=blocks), workspace, tmp_path / "one")._current()
    assert training_sizes(growing.context.config) == (32, 64, 64)
    for epoch, size in enumerate((32, 64, 64)):
        settings = config(size, blocks=blocks, start_size=1.0)
        fixed = Training(settings, workspace, tmp_path / str(epoch))._current()
        pairs = zip(
            growing._batches.train_batches(epoch, 5),
            fixed._batches.train_batches(epoch, 5),
            strict=True,
        )
        for ours, theirs in pairs:
            assert ours.inputs.shape[2:] == (size, size)
            assert torch.equal(ours.inputs, theirs.inputs)
            assert torch.equal(ours.labels, theirs.labels)


@pytest.mark.parametrize(
    ("backbone", "blocks"),
    [
        ("test_efficientnet", "all"),
        pytest.param("test_efficientnet", 2, marks=pytest.mark.slow),
        ("test_vit", 2),
    ],
)
def test_it_trains_as_a_plain_loop_does(workspace, tmp_path, backbone, blocks):
    settings = config(
        backbone=backbone, blocks=blocks, warmup=0, learning_rate=0.02, head_learning_rate=0.1
    )

    def rate(name, share):
        return (0.1 if name.startswith("head.") else 0.02) * cosine(share)

    expected = plain_loop(Training(settings, workspace, tmp_path / "loop"), rate)
    assert_close(weights(run(Training(settings, workspace, tmp_path / "ours"))), expected)


@pytest.mark.parametrize("views", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_resuming_equals_never_having_stopped(workspace, tmp_path, views):
    settings = config(views=views, ema=0.5, blocks="all")
    training = check_resumes(settings, workspace, tmp_path, stop_after=1)
    # What is validated and exported sees whole images.
    assert all(batch.shape[2] == 64 for batch in _evaluated(training))
    plain = config(blocks="all", start_size=1.0)
    check_exported(training, Training(plain, workspace, tmp_path / "plain"))


def _evaluated(training):
    dataset = training.workspace.dataset
    return training._current()._evaluated(dataset.pool, "pool", dataset.validation_index)


def test_images_without_room_to_grow_stay_as_they_are(workspace, tmp_path):
    one, other = config(32, start_size=1.0), config(32)
    assert training_sizes(other) == (32, 32, 32), "smaller ones would be less than a position"
    assert_close(
        weights(run(Training(one, workspace, tmp_path / "one"))),
        weights(run(Training(other, workspace, tmp_path / "other"))),
    )


def test_cached_activations_are_refused(workspace, tmp_path):
    training = Training(config(views=2), workspace, tmp_path)
    with pytest.raises(UserError, match=r"start_size: found 0\.5 with cached activations"):
        training.run_epoch()


FILE = """name: t
data: {source: typefaces, image_size: 64}
model: {backbone: test_efficientnet, weights: none, head: linear, pooling: average}
training:
  head: {epochs: 0}
  finetune:
    epochs: 4
    compile: false
    start_size: 0.5
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("compile: false", "compile: true"), "found 0.5 with training.finetune.compile: true"),
        (
            ("pooling: average", "pooling: bilinear"),
            "found 0.5, for test_efficientnet 32 px, which gives a map of 1 x 1 positions",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(tmp_path, capsys, change, message):
    file = tmp_path / "t.yaml"
    file.write_text(FILE.replace(*change))
    code = main(["check", str(file)])
    error = capsys.readouterr().err
    assert code == 2
    assert f"{file}:9: training.finetune.start_size: {message}" in error
