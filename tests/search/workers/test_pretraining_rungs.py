"""Weak pretrainings stop before a head is trained, in searches on Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.search.study.goals import knn_by_epoch
from tests.search.experiments import YAML, experiment, searched

pytest.importorskip("lightly")

TEXT = YAML.replace(
    "training:\n",
    """pretrain:
  epochs: 2
  batch_size: 60
  hidden_dim: 8
  projection_dim: 4
  learning_rate: {choice: [0.03, 0.01, 0.003, 0.001]}
training:
  pretrain: true
""",
)
OVERRIDES = (
    "model.backbone=test_resnet",
    "training.head.epochs=1",
    "search.trials=5",
    "search.sampler.name=random",
    "search.scheduler.reduction=2",
    "search.scheduler.pretrain_grace=1",
)


@pytest.mark.slow
def test_rungs_within_pretrainings(
    run: RunDirectory, one_slot: Slots, cache_dir: Path, ray_of_tests: None
) -> None:
    tried = experiment(*OVERRIDES, text=TEXT)
    outcome = searched(tried, run, resources=one_slot, cache_dir=cache_dir)
    trials = outcome.study.trials()
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    rates: dict[float, dict[int, float]] = {}
    reached: dict[int, list[float]] = {-2: [], -1: []}
    for trial in trials:
        accuracies = knn_by_epoch(trial)
        rungs = outcome.study.rungs(trial)
        assert [rungs[k] for k in sorted(rungs) if k < 0] == [
            pytest.approx(1 - each) for each in accuracies.values()
        ]
        # Trials that share a pretraining report the same.
        shared = rates.setdefault(trial.params["pretrain.learning_rate"], {})
        assert all(shared.get(epoch, each) == each for epoch, each in accuracies.items())
        shared |= accuracies
        epochs = EpochLog(run.trial("search", trial.number) / "epochs.jsonl").read()
        stopped = trial.state.name == "PRUNED" and max(rungs) < 0
        assert len(epochs) == (0 if stopped else 1)
        # One that is worse than the median of those before it ends there.
        for k in (-2, -1):
            if k not in rungs:
                break
            before, value = reached[k], rungs[k]
            worse = bool(before) and value > float(np.median(before))
            protected = trial.user_attrs.get("protected", False)
            assert (max(rungs) == k) == (worse and not protected)
            reached[k].append(value)
    table = pandas.read_parquet(run.trials_parquet)
    assert "rungs.-1" not in table
    known = table.set_index("number")["pretrain_knn.1"].to_dict()
    assert known == {trial.number: knn_by_epoch(trial)[1] for trial in trials}
