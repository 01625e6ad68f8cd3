"""One small search that was followed by everybody: two drivers, the second resumes the first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.run import RunDirectory, write_json, write_text
from gsfl_tune.search import run_study
from gsfl_tune.search.tracking import TensorBoard, Tracking, open_trackers
from tests.search.experiments import experiment

TRIALS = 6
OVERRIDES = (f"search.trials={TRIALS}", "search.sampler.name=random")


@dataclass
class Followed:
    run: RunDirectory
    mlflow: str
    wandb: Path
    notices: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def followed(
    tmp_path_factory: pytest.TempPathFactory, cache_dir: Path, ray_of_tests: None
) -> Iterator[Followed]:
    folder = tmp_path_factory.mktemp("followed")
    found = Followed(
        RunDirectory(folder / "run"), f"sqlite:///{folder / 'mlflow.db'}", folder / "wandb"
    )
    tried = experiment(*OVERRIDES)
    write_text(found.run.experiment_file, tried.to_yaml())
    write_json(found.run.manifest_file, {"format": 1, "seconds": {}})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        for trials in (2, TRIALS):
            trackers = open_trackers(mlflow=found.mlflow, wandb="tests")
            tracking = Tracking(trackers, found.run, found.notices.append, patience=120)
            run_study(
                tried,
                found.run,
                trials=trials,
                resources=Slots(cpu=1, gpu=0, count=2),
                cache_dir=cache_dir,
                watchers=[tracking, TensorBoard(found.run, tried)],
            )
            tracking.close()
        yield found
    os.environ.pop("MLFLOW_TRACKING_URI", None)
