"""One trial: what it learns, how it stops, how it goes on."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import EpochLog
from gsfl_tune.run.checkpoints import stored
from gsfl_tune.training import CheckpointError, NonFiniteLoss, Training, Workspace
from gsfl_tune.training.checkpoint import load_checkpoint, save_checkpoint
from gsfl_tune.training.fingerprint import fingerprint

from .conftest import tiny_config

BOTH_STAGES = {
    "head": {"epochs": 2},
    "finetune": {"epochs": 2, "batch_size": 24, "blocks": 2},
}


def run(training):
    while not training.finished:
        training.run_epoch()
    return training


def state_of(training):
    """Everything that decides how a training goes on and what it predicts."""
    training.save()
    return torch.load(training.checkpoint_path, weights_only=True)


def assert_equal_states(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal_states(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_equal_states(left, right)
    else:
        assert one == other


def without_seconds(records):
    timed = ("seconds", "cache_seconds", "start_seconds")
    return [{k: v for k, v in record.items() if k not in timed} for record in records]


@pytest.mark.parametrize(
    ("changes", "stop_after"),
    [
        ({}, 1),
        ({"training": {"ema": 0.9, "head": {"optimizer": "sgd"}}}, 2),
        ({"loss": {"center_init": "class_mean"}, "training": BOTH_STAGES}, 1),
        ({"training": BOTH_STAGES}, 2),
        ({"training": {**BOTH_STAGES, "ema": 0.8}}, 3),
        (
            {
                "model": {"head": "plain"},
                "training": {
                    "head": {"epochs": 0},
                    "finetune": {"epochs": 2, "accumulate": 2, "optimizer": "sgd"},
                },
            },
            1,
        ),
    ],
    ids=["head", "ema-sgd", "class-mean", "boundary", "in-finetune", "plain-finetune-only"],
)
def test_resuming_equals_never_having_stopped(workspace, tmp_path, changes, stop_after):
    config = tiny_config(**changes)
    whole = run(Training(config, workspace, tmp_path / "whole"))

    first = Training(config, workspace, tmp_path / "parts")
    for _ in range(stop_after):
        first.run_epoch()
    first.save()
    first.run_epoch()  # trained, but lost: no checkpoint was written
    second = Training(config, workspace, tmp_path / "parts")
    assert second.restore()
    assert second.epoch == stop_after
    run(second)

    assert_equal_states(state_of(whole), state_of(second))
    assert np.array_equal(whole.predict("test").logits, second.predict("test").logits)
    assert without_seconds(whole.log.read()) == without_seconds(second.log.read())


def test_learns_more_than_chance(workspace, tmp_path):
    config = tiny_config(training={"head": {"epochs": 25, "learning_rate": 0.01}})
    training = run(Training(config, workspace, tmp_path))
    records = EpochLog(tmp_path / "epochs.jsonl").read()
    assert len(records) == 25
    assert records[-1]["train/cross_entropy"] < 0.8 * records[0]["train/cross_entropy"]
    predictions = training.predict("validation")
    assert predictions.logits.shape == (len(workspace.dataset.validation_index), 21)
    assert predictions.metrics()["accuracy"] == records[-1]["validation/accuracy"]


def test_a_seed_decides_everything(workspace, tmp_path):
    def last(seed, name):
        training = Training(tiny_config(), workspace, tmp_path / name, seed=seed)
        return without_seconds([run(training).log.read()[-1]])

    assert last(1, "a") == last(1, "b")
    assert last(1, "c") != last(2, "d")


def test_training_does_not_disturb_the_callers_random_numbers(workspace, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Training(tiny_config(), workspace, tmp_path).run_epoch()
    assert torch.equal(torch.rand(3), expected)


def test_cached_features_give_the_logits_of_the_whole_network(workspace, tmp_path):
    training = run(Training(tiny_config(), workspace, tmp_path))
    network = training.trained_network()
    assert not network.training

    from gsfl_tune.data.augment import center_crop

    preprocessing = network.backbone.preprocessing
    images = workspace.dataset.test.gather(np.arange(8))
    batch = center_crop(torch.from_numpy(images), 32, preprocessing.mean, preprocessing.std)
    with torch.inference_mode():
        logits = network.head.infer(network.features(batch))
    assert np.allclose(logits.numpy(), training.predict("test").logits[:8], atol=1e-5)


def test_final_fit_trains_on_validation_images_too(workspace, tmp_path):
    training = Training(tiny_config(), workspace, tmp_path, fit="train+validation")
    record = training.run_epoch()
    assert len(training.context.train_positions) == len(workspace.dataset.pool)
    assert not [key for key in record if key.startswith("validation/")]


def test_finetune_is_validated_with_the_backbone_it_trained(workspace, tmp_path):
    changes = {"finetune": {"epochs": 1, "batch_size": 24, "learning_rate": 0.05}}
    config = tiny_config(training={"head": {"epochs": 1}, **changes})
    training = run(Training(config, workspace, tmp_path))
    assert [record["stage"] for record in training.log.read()] == ["head", "finetune"]
    frozen = workspace.backbone(config).state_dict()
    trained = training.trained_network().backbone.state_dict()
    assert any(not torch.equal(frozen[name], trained[name]) for name in frozen)
    assert training.predict("validation").metrics()["nll"] == pytest.approx(
        training.log.read()[-1]["validation/nll"]
    )


def test_only_the_last_blocks_train(workspace, tmp_path):
    config = tiny_config(
        training={"head": {"epochs": 0}, "finetune": {"epochs": 1, "blocks": 1, "batch_size": 32}}
    )
    before = workspace.new_backbone(config).state_dict()
    training = run(Training(config, workspace, tmp_path))
    after = training.trained_network().backbone.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert len(changed) < len(before)
    untouched = workspace.backbone(config).state_dict()
    assert all(torch.equal(before[name], untouched[name]) for name in before)


def test_a_non_finite_loss_is_named(workspace, tmp_path):
    config = tiny_config(training={"head": {"learning_rate": 1e30}})
    training = Training(config, workspace, tmp_path)
    with pytest.raises(NonFiniteLoss, match=r"epoch \d+"):
        run(training)
    records = training.log.read()
    assert all(np.isfinite(record["train/loss"]) for record in records)


def test_a_term_without_weight_may_overflow(workspace, tmp_path):
    config = tiny_config(loss={"reconstruction": 0}, model={"head": "gsfl"})
    training = Training(config, workspace, tmp_path)
    decoder = [
        parameter for name, parameter in training.head.named_parameters() if "decoder" in name
    ]
    with torch.no_grad():
        for parameter in decoder:
            parameter.fill_(1e38)
    record = training.run_epoch()
    assert np.isfinite(record["train/loss"])
    assert "train/reconstruction" not in record
    assert training.log.read() == [record]
    heavy = Training(tiny_config(loss={"reconstruction": 1}), workspace, tmp_path / "heavy")
    with torch.no_grad():
        for name, parameter in heavy.head.named_parameters():
            if "decoder" in name:
                parameter.fill_(1e38)
    with pytest.raises(NonFiniteLoss, match=r"train/loss.*train/reconstruction"):
        heavy.run_epoch()


def test_checkpoint_of_another_configuration_is_not_used(workspace, tmp_path):
    training = Training(tiny_config(), workspace, tmp_path)
    training.run_epoch()
    training.save()
    other = Training(tiny_config(model={"latent_dim": 8}), workspace, tmp_path)
    assert not other.restore()
    assert other.epoch == 0
    assert other.log.read() == []


@pytest.fixture
def photos(tmp_path):
    """A folder of noise in three classes."""
    random = np.random.default_rng(0)
    for number in range(24):
        folder = tmp_path / "photos" / f"class {number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


def _on(folder, tmp_path):
    config = tiny_config(data={"source": "folder", "path": str(folder)})
    opened = Workspace.open(config.data, cache_dir=tmp_path / "cache", device=torch.device("cpu"))
    return Training(config, opened, tmp_path / "training")


def test_images_may_move_and_their_training_goes_on(photos, tmp_path):
    training = _on(photos, tmp_path)
    training.run_epoch()
    training.save()
    moved = photos.rename(tmp_path / "elsewhere")
    again = _on(moved, tmp_path)
    assert again.restore()
    assert again.epoch == 1


def test_other_images_at_the_same_path_are_another_training(photos, tmp_path):
    training = _on(photos, tmp_path)
    training.run_epoch()
    training.save()
    first = min(photos.rglob("*.png"))
    Image.new("RGB", (40, 40), "red").save(first)
    assert not _on(photos, tmp_path).restore()


def test_a_checkpoint_of_an_earlier_version_goes_on_where_its_images_are(photos, tmp_path):
    training = _on(photos, tmp_path)
    training.run_epoch()
    training.save()
    state = load_checkpoint(training.checkpoint_path)
    del state["data"]
    state["fingerprint"] = fingerprint(training.config, placed=True)
    save_checkpoint(training.checkpoint_path, state)
    assert _on(photos, tmp_path).restore()
    assert not _on(photos.rename(tmp_path / "elsewhere"), tmp_path).restore()


def test_a_broken_checkpoint_is_an_error_that_names_the_file(workspace, tmp_path):
    training = Training(tiny_config(), workspace, tmp_path)
    training.run_epoch()
    training.save()
    data = training.checkpoint_path.read_bytes()
    training.checkpoint_path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        Training(tiny_config(), workspace, tmp_path).restore()


def _saved_thrice(workspace, tmp_path, keep):
    training = Training(tiny_config(), workspace, tmp_path)
    training.keep = keep
    for _ in range(3):
        training.run_epoch()
        training.save()
    return training


def test_the_last_checkpoints_are_kept(workspace, tmp_path):
    training = _saved_thrice(workspace, tmp_path, keep=3)
    kept = [load_checkpoint(path)["epoch"] for path in stored(training.checkpoint_path)]
    assert kept == [3, 2, 1]
    training.keep = 2
    training.run_epoch()
    training.save()
    kept = [load_checkpoint(path)["epoch"] for path in stored(training.checkpoint_path)]
    assert kept == [4, 3]
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == [
        "checkpoint.1.pt",
        "checkpoint.pt",
    ]
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_broken_checkpoint_costs_what_came_after_the_one_before(workspace, tmp_path):
    training = _saved_thrice(workspace, tmp_path / "broken", keep=2)
    data = training.checkpoint_path.read_bytes()
    training.checkpoint_path.write_bytes(data[: len(data) // 2])
    again = Training(tiny_config(), workspace, tmp_path / "broken")
    again.keep = 2
    assert again.restore()
    assert again.epoch == again.saved == 2
    assert [record["epoch"] for record in again.log.read()] == [1, 2]
    whole = _saved_thrice(workspace, tmp_path / "whole", keep=1)
    again.run_epoch()
    again.save()
    kept = [load_checkpoint(path)["epoch"] for path in stored(again.checkpoint_path)]
    assert kept == [3, 2]
    expected, found = (each.trained_network().state_dict() for each in (whole, again))
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_only_the_last_checkpoint_is_the_model(workspace, tmp_path):
    training = _saved_thrice(workspace, tmp_path, keep=2)
    training.checkpoint_path.write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        Training(tiny_config(), workspace, tmp_path).look()
    for path in stored(training.checkpoint_path):
        path.write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        Training(tiny_config(), workspace, tmp_path).restore()


def test_more_groups_than_classes_is_the_users_error(workspace, tmp_path):
    with pytest.raises(UserError, match=r"model\.groups"):
        Training(tiny_config(model={"groups": {"count": 22}}), workspace, tmp_path)


def test_bilinear_pooling_trains_in_both_stages(workspace, tmp_path):
    config = tiny_config(
        model={"pooling": "bilinear", "pooling_channels": 8},
        training={
            "head": {"epochs": 1},
            "finetune": {"epochs": 1, "blocks": 1, "batch_size": 32},
        },
    )
    training = run(Training(config, workspace, tmp_path))
    network = training.trained_network()
    assert network.projection is not None
    assert np.isfinite(training.predict("test").logits).all()


@pytest.mark.parametrize("stage", ["head", "finetune"])
def test_a_training_that_nobody_needs_frees_its_memory_at_once(workspace, tmp_path, stage):
    """The next trial of the process needs the GPU, and does not wait for a collection."""
    epochs = {"head": {"epochs": 1}, "finetune": {"epochs": int(stage == "finetune")}}
    gc.collect()
    gc.disable()
    try:
        training = Training(tiny_config(training=epochs), workspace, tmp_path)
        run(training)
        current = training._current()
        held = [weakref.ref(current), weakref.ref(current.module), weakref.ref(current.optimizer)]
        del current, training
        assert [each() for each in held] == [None, None, None]
    finally:
        gc.enable()
