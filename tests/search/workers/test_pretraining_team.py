"""Pretrainings of several processes: the losses of whole batches, and the gradients of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.experiment.config import Config
from gsfl_tune.pretraining import pretrain
from gsfl_tune.search.workers.pretraining_rungs import learn, shared_pretraining
from gsfl_tune.search.workers.pretraining_team import begin_pretraining, pretraining_team
from gsfl_tune.search.workers.rank_pool import RankProcesses
from gsfl_tune.search.workers.settings import WorkerSettings
from gsfl_tune.search.workers.workspaces import open_workspace
from gsfl_tune.training.pretrain import Pretraining, PretrainingFailed
from tests.search.experiments import experiment

pytest.importorskip("lightly")

# A batch that cannot be halved. Few steps: later ones see queues and statistics of the first.
BATCH = 25
OVERRIDES = (
    "model.backbone=test_resnet",
    "training.device=cpu",
    "training.precision=fp32",
    f"pretrain.batch_size={BATCH}",
    "pretrain.epochs=2",
    "pretrain.warmup=0",
    "pretrain.learning_rate=0.02",
    "pretrain.hidden_dim=16",
    "pretrain.projection_dim=8",
    "pretrain.prototypes=32",
    "pretrain.queue=40",
)
PAIRS = (
    "pretrain.discriminative.pair_weight=0.7",
    "pretrain.discriminative.reconstruction_weight=0.3",
    "pretrain.discriminative.decoder_width=8",
    # Adam moves a weight by the sign of its gradient at first, also where that is rounding alone.
    "pretrain.discriminative.decoder_learning_rate=0.000001",
    "pretrain.discriminative.warmup=0",
    "pretrain.discriminative.perturbation=swap",
    "pretrain.discriminative.reconstruct=both",
)
# The others are slow: their losses are gathered in the same way.
QUICK = ("moco", "vicreg", "dino")
CASES = {
    "moco": ("pretrain.augment.local_crops=1", "pretrain.augment.local_size=16"),
    "vicreg": (),
    "lejepa": (),
    # Its head begins with tiny outputs, which it normalises: gradients are huge.
    "dino": ("pretrain.prototypes=16", "pretrain.learning_rate=0.0001"),
    # Nearly no steps: after one, a change of 1e-7 in the weights moves gradients by a tenth.
    "byol": (*PAIRS, "pretrain.learning_rate=0.000001"),
    "simsiam": (
        "pretrain.lcr.weight=0.1",
        "data.image_size=64",
        "pretrain.learning_rate=0.000001",
    ),
}
# Gradients of maps that are divided by their small range: the same change moves them by 0.0006.
ROUGHER = {"simsiam": 0.02}


def config_of(*overrides: str) -> Config:
    return experiment("data.typefaces.train=4", *OVERRIDES, *overrides).defaults()


def begun(config: Config, directory: Path, cache_dir: Path, *, together: bool) -> Pretraining:
    workspace = open_workspace(config.data, None, cache_dir)
    training = begin_pretraining(config, workspace, directory, "key")
    assert training.steps in (2, 3)
    if together:
        training.team = pretraining_team(config, workspace, 2)
    return training


def state(training: Pretraining) -> dict[str, Any]:
    return {
        name: tensor.detach().clone()
        for name, tensor in (
            *training.network.named_parameters(),
            *training.network.named_buffers(),
        )
    }


def gradients(training: Pretraining) -> dict[str, torch.Tensor]:
    named = training.network.named_parameters()
    return {name: each.grad for name, each in named if each.grad is not None}


@pytest.mark.parametrize(
    "method",
    [pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow) for each in CASES],
)
def test_two_processes_compute_what_one_does(
    method: str, tmp_path: Path, cache_dir: Path, team: RankProcesses
) -> None:
    config = config_of(f"pretrain.method={method}", *CASES[method])
    one = begun(config, tmp_path / "one", cache_dir, together=False)
    before = state(one)
    two = begun(config, tmp_path / "two", cache_dir, together=True)
    records = [training.run_epoch() for training in (one, two)]
    two.leave()
    numbers = [{k: v for k, v in record.items() if k != "seconds"} for record in records]
    assert numbers[1] == pytest.approx(numbers[0], rel=1e-5, abs=1e-6)
    ours, theirs = state(one), state(two)
    moved = [n for n in ours if not torch.equal(ours[n], before[n])]
    assert any(name.startswith("backbone") for name in moved)
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5), name
    # Of the last step.
    ours, theirs = gradients(one), gradients(two)
    assert ours.keys() == theirs.keys()
    largest = max(float(each.abs().max()) for each in ours.values())
    for name, own in ours.items():
        allowed = ROUGHER.get(method, 1e-4) * float(own.abs().max()) + 1e-5 * largest
        assert float((own - theirs[name]).abs().max()) <= allowed, name


def test_a_loss_that_is_not_finite_ends_all_of_them(
    tmp_path: Path, cache_dir: Path, team: RankProcesses
) -> None:
    config = config_of("pretrain.method=vicreg", "pretrain.learning_rate=1e30")
    failing = begun(config, tmp_path / "failing", cache_dir, together=True)
    with pytest.raises(PretrainingFailed, match="non-finite train/"):
        failing.run_epoch()
    failing.leave()
    # The same processes serve the next pretraining.
    allowed = config_of("pretrain.method=vicreg")
    following = begun(allowed, tmp_path / "on", cache_dir, together=True)
    assert following.run_epoch()["epoch"] == 1
    following.leave()


def test_where_weights_are_divided_one_process_learns_alone(tmp_path: Path) -> None:
    """Each process of such a trial has a place of its own, so this one sees a single GPU."""
    config = config_of("pretrain.method=vicreg", "training.pretrain=true")
    workspace = open_workspace(config.data, None, tmp_path / "cache")
    settings = WorkerSettings(interrupt=tmp_path / "interrupt", workers=2, shard=True)
    before = set(psutil.Process().children())
    learn(config, workspace, settings)
    assert len(list((tmp_path / "cache" / "pretrained").glob("*.safetensors"))) == 1
    assert set(psutil.Process().children()) <= before
    divided = settings.model_copy(update={"shard": False})
    assert shared_pretraining(config, workspace, settings, [])._team is None
    assert shared_pretraining(config, workspace, divided, [])._team is not None


def test_groups_that_processes_cannot_share_are_refused(
    tmp_path: Path, cache_dir: Path, team: RankProcesses
) -> None:
    config = config_of("pretrain.method=moco", "pretrain.norm_groups=3")
    training = begun(config, tmp_path, cache_dir, together=True)
    with pytest.raises(UserError, match=r"norm_groups: found 3 for 2 processes.*a multiple"):
        training.run_epoch()
    # Nothing is judged, and nothing binds the next start.
    whole = Experiment.parse(yaml.safe_dump(config.model_dump(mode="json")))
    folder = tmp_path / "run"
    with pytest.raises(UserError, match=r"norm_groups: found 3 for 2 processes"):
        pretrain(
            whole,
            folder,
            cache_dir=cache_dir,
            gather=lambda config, workspace: pretraining_team(config, workspace, 2),
        )
    assert not (folder / "epochs.jsonl").exists()
