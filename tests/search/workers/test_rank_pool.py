"""Trials of several processes: as good as one, and they fail as one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image

from gsfl_tune.data.folds import Fold
from gsfl_tune.data.sources import TypefacesSource
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.data_config import TypefacesConfig
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.models import create_backbone
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Job
from gsfl_tune.search.workers.rank_pool import RankLost, RankProcesses
from gsfl_tune.search.workers.retrain import run_job
from gsfl_tune.search.workers.settings import WorkerSettings
from gsfl_tune.search.workers.task import Task
from gsfl_tune.search.workers.trial_worker import TrialWorker
from gsfl_tune.search.workers.workspaces import open_workspace
from gsfl_tune.training import Training
from gsfl_tune.training.fold_workspace import FoldWorkspace
from tests.search.experiments import experiment

# A batch that cannot be halved, and an epoch whose last step has fewer micro-batches than the
# others. Without dropout, the masks of which every rank draws for itself.
FINETUNE = (
    "model.dropout=0",
    "training.head.epochs=1",
    "training.head.learning_rate=0.01",
    "training.finetune.epochs=2",
    "training.finetune.batch_size=21",
    "training.finetune.accumulate=2",
    "training.finetune.optimizer=sgd",
    "training.finetune.learning_rate=0.001",
    "training.finetune.head_learning_rate=0.005",
)


def config_of(*overrides: str) -> Config:
    return experiment(
        "model.head=gsfl", "training.precision=fp32", *FINETUNE, *overrides
    ).defaults()


def trained(
    config: Config, directory: Path, cache_dir: Path, team: RankProcesses | None, **options: Any
) -> Training:
    workspace = open_workspace(config.data, None, cache_dir)
    training = Training(config, workspace, directory, team=team, **options)
    training.restore()
    while not training.finished:
        training.run_epoch()
    training.save()
    return training


def _assert_same(one: Training, other: Training) -> None:
    """Everything reported but times up to 1e-5; weights, statistics and centres up to 1e-4."""
    records = [training.log.read() for training in (one, other)]
    for ours, theirs in zip(*records, strict=True):
        # Whoever comes first fills the cache and reports its seconds.
        apart = ("stage", "seconds", "cache_seconds")
        assert {key for key, value in ours.items() if isinstance(value, str)} == {
            key for key, value in theirs.items() if isinstance(value, str) and ours[key] == value
        }
        numbers = {
            key: value
            for key, value in ours.items()
            if key not in apart and not isinstance(value, str)
        }
        assert numbers == pytest.approx({key: theirs[key] for key in numbers}, rel=1e-5, abs=1e-6)
    states = [torch.load(training.checkpoint_path, weights_only=True) for training in (one, other)]
    for part in ("module", "averaged", "loss", "method"):
        ours, theirs = (state.get(part) or {} for state in states)
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-4), name


def slow(*overrides: str) -> Any:
    return pytest.param(overrides, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "overrides",
    [
        ("loss.center_init=class_mean", "training.finetune.clip_norm=1", "training.ema=0.5"),
        slow("model.head=plain", "training.finetune.blocks=2"),
        # Adapters that are trained, and rates that fall from block to block.
        slow(
            "training.finetune.train=lora",
            "training.finetune.adapter_rank=4",
            "training.finetune.layer_decay=0.5",
            "training.finetune.blocks=2",
            "training.ema=0.5",
        ),
        # A block that joins later, whose norms are of the whole batch then too.
        slow("training.finetune.unfreeze=1", "training.finetune.blocks=2", "training.ema=0.5"),
        # Statistics of norms that are found anew.
        slow(
            "training.finetune.optimizer=schedule_free",
            "training.finetune.learning_rate=0.0001",
            "training.finetune.head_learning_rate=0.0001",
            "training.finetune.blocks=2",
        ),
        # What is drawn for an image does not depend on the process that it is in.
        slow("training.method=attention_crop", "data.image_size=64", "training.finetune.blocks=1"),
        # Classifiers that are the method's own.
        slow("training.method=pmg", "data.image_size=64", "training.finetune.blocks=2"),
        # No head stage, cached activations, centres that start from one process' features.
        slow(
            "training.head.epochs=0",
            "loss.center_init=class_mean",
            "training.finetune.blocks=1",
            "data.views=2",
        ),
        # Terms with parameters that are trained.
        slow(
            "loss.group_reversal.weight=0.5",
            "loss.metric_learning.weight=0.1",
            "loss.metric_learning.scale=4",
        ),
        # Two views of each image, whose predictions are compared.
        slow("training.method=two_views", "training.finetune.blocks=1", "data.views=2"),
    ],
    ids=[
        *("gsfl-all", "plain-blocks", "adapters", "unfreeze", "schedule-free", "crops", "jigsaws"),
        *("gsfl-views", "terms", "two-views"),
    ],
)
def test_two_processes_train_as_one(
    team: RankProcesses, tmp_path: Path, cache_dir: Path, overrides: tuple[str, ...]
) -> None:
    config = config_of(*overrides)
    alone = trained(config, tmp_path / "alone", cache_dir, None)
    together = trained(config, tmp_path / "together", cache_dir, team)
    assert together.ranks is not None
    _assert_same(alone, together)
    together.close()


@pytest.mark.slow
def test_two_processes_train_a_fold_as_one(
    team: RankProcesses, tmp_path: Path, cache_dir: Path
) -> None:
    config = config_of("training.finetune.blocks=1")
    fold = FoldWorkspace(open_workspace(config.data, None, cache_dir), Fold(1, 3))
    found = []
    for name, ranks in (("alone", None), ("together", team)):
        training = Training(config, fold, tmp_path / name, team=ranks)
        while not training.finished:
            training.run_epoch()
        training.save()
        found.append(training)
    alone, together = found
    assert together.ranks is not None
    assert together.validated is not None
    assert len(together.validated.labels) == len(fold.dataset.validation_index)
    _assert_same(alone, together)
    together.close()


@pytest.mark.slow
def test_two_processes_share_images_without_labels(
    team: RankProcesses, tmp_path: Path, cache_dir: Path
) -> None:
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    source = TypefacesSource(TypefacesConfig(train=2, test=1, size=40, seed=9))
    for position, reader in source.readers(range(len(source.samples))):
        image = reader()
        assert isinstance(image, Image.Image)
        image.save(folder / f"{position}.png")
    config = config_of(
        f"data.unlabelled={folder}",
        "training.method=fixmatch",
        # A probability near a threshold would be above it in one of both.
        "training.fixmatch.threshold=0",
        "training.finetune.blocks=2",
    )
    alone = trained(config, tmp_path / "alone", cache_dir, None)
    together = trained(config, tmp_path / "together", cache_dir, team)
    assert together.ranks is not None
    _assert_same(alone, together)
    assert together.log.read()[-1]["train/pseudo_share"] == 1
    together.close()


@pytest.mark.slow
def test_a_checkpoint_is_the_same_for_any_number_of_processes(
    team: RankProcesses, tmp_path: Path, cache_dir: Path
) -> None:
    config = config_of("training.ema=0.5")
    workspace = open_workspace(config.data, None, cache_dir)
    whole = trained(config, tmp_path / "whole", cache_dir, None, fit="train+validation")
    for first, second in ((None, team), (team, None)):
        directory = tmp_path / ("one-two" if first is None else "two-one")
        begun = Training(config, workspace, directory, fit="train+validation", team=first)
        begun.run_epoch()
        begun.run_epoch()
        begun.save()
        begun.close()
        _assert_same(whole, trained(config, directory, cache_dir, second, fit="train+validation"))
        team.leave()


def test_fewer_images_in_a_batch_than_processes_are_refused(
    team: RankProcesses, tmp_path: Path, cache_dir: Path
) -> None:
    config = config_of("training.finetune.batch_size=2", "training.head.epochs=0")
    workspace = open_workspace(config.data, None, cache_dir)
    training = Training(config, workspace, tmp_path, team=RankProcesses(3))
    with pytest.raises(UserError, match=r"batch_size: found 2 .* each of the 3 processes"):
        training.run_epoch()


def test_what_breaks_in_another_process_is_said_here(
    team: RankProcesses, tmp_path: Path, cache_dir: Path
) -> None:
    weights = tmp_path / "weights.pt"
    torch.save(create_backbone("resnet10t", "none").model.state_dict(), weights)
    config = config_of(f"model.weights={weights}", "training.head.epochs=0")
    workspace = open_workspace(config.data, None, cache_dir)
    training = Training(config, workspace, tmp_path, team=team)
    weights.unlink()  # read by this process, not yet by the other one
    with pytest.raises(EnvironmentProblem, match=r"rank 1: .*weights\.pt"):
        training.run_epoch()
    training.close()


@pytest.mark.slow
def test_a_process_that_leaves_its_group_late_takes_part_in_the_next_training(
    team: RankProcesses, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch 2.14 aborts a process if its group's file goes at the moment when it leaves."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    config = config_of("training.head.epochs=0", "training.finetune.epochs=1")
    workspace = open_workspace(config.data, None, cache_dir)
    first = Training(config, workspace, tmp_path / "first", team=team)
    first.run_epoch()
    (rank,) = ranks_below(psutil.Process())
    rank.suspend()
    first.close()
    (meeting,) = tmp_path.glob("gsfl-ranks-*/meeting")
    rank.resume()
    second = Training(config, workspace, tmp_path / "second", team=team)
    second.run_epoch()
    second.close()
    assert ranks_below(psutil.Process()) == [rank]
    assert not meeting.parent.exists()


@pytest.mark.slow
def test_kill_9_of_another_process_ends_the_training_at_once(
    team: RankProcesses, tmp_path: Path, cache_dir: Path
) -> None:
    config = config_of("training.finetune.epochs=200")
    workspace = open_workspace(config.data, None, cache_dir)
    training = Training(config, workspace, tmp_path, team=team)
    for _ in range(3):
        training.run_epoch()
    training.save()
    (rank,) = ranks_below(psutil.Process())
    rank.kill()
    with pytest.raises(RankLost, match=r"rank 1, a process of the trial, died \(signal 9\)"):
        training.run_epoch()
    training.close()
    # And this process can go on with a new one.
    again = Training(config, workspace, tmp_path, team=team)
    assert again.restore()
    assert again.run_epoch()["epoch"] == 4
    again.close()


def _task(run: RunDirectory, cache_dir: Path, **changes: Any) -> Task:
    known: dict[str, Any] = {
        "number": 0,
        "config": config_of(),
        "directory": run.trial("search", 0),
        "interrupt": run.interrupt_file,
        "metric": "validation/nll",
        "rungs": [1, 2, 3],
        "cache_dir": cache_dir,
        "workers": 2,
    }
    return Task(**{**known, **changes})


@pytest.mark.slow
def test_an_interrupt_between_rungs_saves_and_one_process_can_go_on(
    team: RankProcesses, run: RunDirectory, cache_dir: Path
) -> None:
    alone = TrialWorker(_task(run, cache_dir, workers=1, directory=run.trial("search", 1)))
    expected = [alone.step()["validation/nll"] for _ in range(3)]
    task = _task(run, cache_dir)
    worker = TrialWorker(task)
    found = [worker.step()["validation/nll"] for _ in range(2)]
    task.interrupt.touch()
    assert worker.step() == {"trial_number": 0, "interrupted": True, "done": True}
    task.interrupt.unlink()
    rest = TrialWorker(task.model_copy(update={"reported": 2, "workers": 1}))
    assert [*found, rest.step()["validation/nll"]] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_a_retrain_of_two_processes_predicts_what_one_does(
    team: RankProcesses, run: RunDirectory, cache_dir: Path
) -> None:
    results = []
    for workers in (1, 2):
        name = f"with-{workers}"
        job = Job(name=name, config=config_of(), seed=1, directory=run.finals / name, test=True)
        setting = WorkerSettings(interrupt=run.interrupt_file, cache_dir=cache_dir, workers=workers)
        results.append(run_job(job, setting))
    one, two = results
    assert one is not None
    assert two is not None
    for part in ("validation", "test"):
        assert one[part] == pytest.approx(two[part], rel=1e-5, abs=1e-6)


def ranks_below(root: psutil.Process) -> list[psutil.Process]:
    found = []
    for process in root.children(recursive=True):
        try:
            if "gsfl_tune.search.workers.rank_main" in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
