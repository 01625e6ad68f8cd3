"""A finished run of small real trainings: winner with two seeds, control with one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gsfl_tune.evidence import Retrained
from gsfl_tune.experiment.config import Config
from gsfl_tune.export import bundle_from_network, write_best_training
from gsfl_tune.run import RunDirectory, write_json
from gsfl_tune.run.results import Outcome, Results, Score, write_results
from gsfl_tune.training import Training, Workspace
from gsfl_tune.training.caches import engines
from gsfl_tune.training.predictions import save_predictions
from tests.training.conftest import tiny_config

SEEDS = (1, 2)
# Two positions a side in the feature map.
SETTING: dict[str, Any] = {
    "data": {"image_size": 64, "typefaces": {"train": 8, "test": 3, "size": 64}},
    "model": {"groups": {"count": 4, "method": "kmeans"}},
    "training": {"head": {"epochs": 8, "learning_rate": 0.01}},
}
FINETUNE = {"epochs": 1, "batch_size": 32, "blocks": 1}


def small_config(**changes: dict[str, Any]) -> Config:
    base = tiny_config(**SETTING).model_dump()
    merged = {name: {**base[name], **values} for name, values in changes.items()}
    return Config.model_validate(base | merged)


@pytest.fixture(scope="package", autouse=True)
def own_engine() -> Iterator[None]:
    """Leaves OpenVINO out: rehearsing it for each network takes longer than these networks do."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(engines.SWITCH_VARIABLE, "0")
        yield


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("evidence-cache")


@pytest.fixture(scope="session")
def workspace(cache_dir) -> Workspace:
    torch.set_num_threads(1)
    return Workspace.open(small_config().data, cache_dir=cache_dir, device=torch.device("cpu"))


def retrain(
    workspace: Workspace, config: Config, folder: Path, seeds: tuple[int, ...] = SEEDS
) -> Retrained:
    """Trains as the end of a search does, and leaves what it leaves."""
    directories = {seed: folder / f"seed-{seed}" for seed in seeds}
    for seed, directory in directories.items():
        training = Training(config, workspace, directory, seed=seed, fit="train+validation")
        while not training.finished:
            training.run_epoch()
        training.save()
        save_predictions(directory / "test.npz", training.predict_as_exported("test"))
    return Retrained(config, directories)


@pytest.fixture(scope="session")
def retrained(workspace, tmp_path_factory) -> Callable[..., Retrained]:
    """Retrains a configuration once, whoever asks for it."""
    known: dict[str, Retrained] = {}

    def get(**changes: dict[str, Any]) -> Retrained:
        key = repr(changes)
        if key not in known:
            folder = tmp_path_factory.mktemp("retrained")
            known[key] = retrain(workspace, small_config(**changes), folder)
        return known[key]

    return get


def outcome(trained: Retrained, **further: Any) -> Outcome:
    scores = Score.table([each.metrics() for each in trained.predictions()])
    return Outcome(
        config=trained.config.model_dump(mode="json"),
        validation=scores,
        test=scores,
        seeds=list(trained.directories),
        **further,
    )


@pytest.fixture(scope="session")
def finished_run(workspace, tmp_path_factory) -> Path:
    """A run directory as a search leaves it; not to be changed."""
    run = RunDirectory(tmp_path_factory.mktemp("run") / "small")
    return finish(workspace, run, small_config())


def finish(workspace: Workspace, run: RunDirectory, config: Config, **further: Any) -> Path:
    """Leaves what a search leaves: winner with two seeds, matched control with one.

    Args:
        workspace: Of the configuration's data.
        run: The run directory, empty.
        config: The winner's.
        further: Further parts of the results, each a function of the winner.
    """
    winner = retrain(workspace, config, run.finals / "search-3" / "retrain")
    plain = config.model_copy(update={"model": config.model.model_copy(update={"head": "plain"})})
    control = retrain(workspace, plain, run.finals / "search-3-plain" / "retrain", (1,))
    dataset = workspace.dataset
    groups = workspace.groups(winner.config)
    run.experiment_file.write_text("name: tiny\ndata: {source: typefaces}\n")
    write_json(run.manifest_file, {"format": 1, "data": dataset.digest})
    write_json(run.data_file, dataset.summary())
    directory = winner.directories[1]
    first = Training(winner.config, workspace, directory, seed=1, fit="train+validation")
    assert first.look()
    network = first.trained_network()
    bundle_from_network(
        run.best,
        network,
        winner.config,
        classes=dataset.classes,
        groups=groups.tolist(),
        side=dataset.pool.side,
        metrics={},
    )
    write_best_training(run.best_training, network, first.centers)
    write_results(
        run.results_file,
        Results(
            name="tiny",
            metric="validation/accuracy",
            trials={"COMPLETE": 4},
            winner=outcome(winner, trial=3),
            control=outcome(control, trial=3, kind="matched"),
            groups=dict(zip(dataset.classes, groups.tolist(), strict=True)),
            **{name: made(winner) for name, made in further.items()},
        ),
    )
    return run.path


@pytest.fixture
def run_copy(finished_run, tmp_path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "small"))
