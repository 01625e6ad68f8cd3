"""Trials whose processes divide the trained parameters too: as good as one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gsfl_tune.models import Backbone
from gsfl_tune.search.workers.rank_pool import RankProcesses
from gsfl_tune.search.workers.workspaces import open_workspace
from gsfl_tune.training import Training
from tests.search.workers.test_rank_pool import _assert_same, config_of, trained


@pytest.fixture(scope="module")
def shards() -> Iterator[RankProcesses]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    team = RankProcesses(2, shards=True)
    yield team
    team.dismiss()
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "overrides",
    [
        ("training.finetune.clip_norm=1", "training.ema=0.5"),
        ("model.head=plain", "training.finetune.blocks=2", "training.finetune.optimizer=adamw"),
        # Two passes before the gradients of both.
        ("training.method=rdrop", "training.finetune.layer_decay=0.5"),
        ("model.backbone=vit_tiny_patch16_224", "data.image_size=32", "model.pooling=cls"),
    ],
    ids=["average and clipping", "last blocks", "two passes", "transformer"],
)
@pytest.mark.slow
def test_it_equals_one_process(
    team: RankProcesses,
    shards: RankProcesses,
    tmp_path: Path,
    cache_dir: Path,
    overrides: tuple[str, ...],
) -> None:
    config = config_of(*overrides)
    one = trained(config, tmp_path / "one", cache_dir, None)
    divided = trained(config, tmp_path / "divided", cache_dir, team)
    divided.close()
    two = trained(config, tmp_path / "two", cache_dir, shards)
    assert two._is_sharded
    assert two._stage is not None
    assert two._stage.shards is not None
    assert two._stage.shards.count > 4
    _assert_same(one, two)
    # Of processes that divide batches alone, the optimiser's state is the same to the last digits.
    states = [torch.load(each.checkpoint_path, weights_only=True) for each in (divided, two)]
    ours, theirs = (each["optimizer"]["state"] for each in states)
    assert ours.keys() == theirs.keys()
    for place in ours:
        for key, value in ours[place].items():
            scale = float(value.abs().max())
            assert value.shape == theirs[place][key].shape
            assert torch.allclose(value, theirs[place][key], rtol=1e-4, atol=1e-4 * scale + 1e-9)
    # Alone, rank 0 predicts with the whole weights.
    ours, theirs = (each.predict("test").logits for each in (one, two))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    weights = [each.trained_network().state_dict() for each in (one, two)]
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], rtol=1e-4, atol=1e-4), name
    two.close()


@pytest.mark.parametrize(
    "overrides",
    [
        ("data.views=2",),
        ("data.eval_image_size=48",),
        ("training.finetune.start_size=0.5", "data.image_size=64"),
    ],
    ids=["fixed views", "another size of validation", "growing images"],
)
@pytest.mark.slow
def test_frozen_blocks_are_prepared_after_the_weights_are_divided(
    shards: RankProcesses, tmp_path: Path, cache_dir: Path, overrides: tuple[str, ...]
) -> None:
    config = config_of("training.finetune.blocks=2", *overrides)
    one = trained(config, tmp_path / "one", cache_dir, None)
    # Activations of its own cache: they are computed while the weights are divided.
    two = trained(config, tmp_path / "two", tmp_path / "cache", shards)
    assert two._is_sharded
    _assert_same(one, two)
    two.close()


@pytest.mark.slow
def test_a_checkpoint_is_the_same_for_any_number_of_processes(
    shards: RankProcesses, tmp_path: Path, cache_dir: Path
) -> None:
    config = config_of("training.ema=0.5")
    workspace = open_workspace(config.data, None, cache_dir)
    whole = trained(config, tmp_path / "whole", cache_dir, None, fit="train+validation")
    straight = trained(config, tmp_path / "straight", cache_dir, shards, fit="train+validation")
    straight.close()
    for first, second in ((None, shards), (shards, None), (shards, shards)):
        names = ["one" if each is None else "shards" for each in (first, second)]
        directory = tmp_path / "-".join(names)
        begun = Training(config, workspace, directory, fit="train+validation", team=first)
        for _ in range(2):
            begun.run_epoch()
        begun.save()
        begun.close()
        after = trained(config, directory, cache_dir, second, fit="train+validation")
        _assert_same(whole, after)
        after.close()
    # Nothing is lost between the same processes: not even the last digit.
    states = [
        torch.load(each.checkpoint_path, weights_only=True)["module"] for each in (straight, after)
    ]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


@pytest.mark.slow
def test_a_checkpoint_of_an_earlier_version_goes_on_with_divided_parameters(
    shards: RankProcesses, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(
        *("model.backbone=vit_tiny_patch16_224", "data.image_size=32", "model.pooling=cls"),
        *("training.finetune.weight_decay=0.1", "training.finetune.learning_rate=0.01"),
    )
    workspace = open_workspace(config.data, None, cache_dir)
    with monkeypatch.context() as before:
        # Position embeddings and tokens had weight decay.
        before.setattr(Backbone, "undecayed", Backbone.adapted_lengths)
        whole = trained(config, tmp_path / "whole", cache_dir, None)
        begun = Training(config, workspace, tmp_path / "begun")
        for _ in range(2):
            begun.run_epoch()
        begun.save()
    # The further process begins with the groups of today.
    after = trained(config, tmp_path / "begun", cache_dir, shards)
    assert after._is_sharded
    _assert_same(whole, after)
    after.close()


@pytest.mark.slow
def test_rank_0_may_use_the_model_alone_between_epochs(
    shards: RankProcesses, tmp_path: Path, cache_dir: Path
) -> None:
    config = config_of("training.ema=0.5", "training.finetune.epochs=3")
    workspace = open_workspace(config.data, None, cache_dir)
    straight = trained(config, tmp_path / "straight", cache_dir, shards)
    straight.close()
    training = Training(config, workspace, tmp_path / "looked", team=shards)
    while not training.finished:
        training.run_epoch()
        assert training.validated is not None
        alone = training.predict("validation").logits
        np.testing.assert_allclose(alone, training.validated.logits, rtol=1e-3, atol=1e-4)
    training.save()
    training.close()
    _assert_same(straight, training)
