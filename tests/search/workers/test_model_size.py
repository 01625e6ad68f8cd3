"""Size and arithmetic of a trained network, and when a worker reports them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gsfl_tune.export import bundle_from_network
from gsfl_tune.run import RunDirectory
from gsfl_tune.search.workers import latency
from gsfl_tune.search.workers.model_size import measure_size
from gsfl_tune.search.workers.task import Task
from gsfl_tune.search.workers.trial_worker import TrialWorker
from gsfl_tune.search.workers.workspaces import open_workspace
from gsfl_tune.training import Training
from tests.search.experiments import experiment


@pytest.fixture
def training(tmp_path: Path, cache_dir: Path) -> Training:
    config = experiment("model.head=gsfl", "training.head.epochs=1").defaults()
    training = Training(config, open_workspace(config.data, None, cache_dir), tmp_path / "t")
    training.run_epoch()
    return training


def test_the_size_is_that_of_the_bundles_weights(training: Training, tmp_path: Path) -> None:
    classes = training.workspace.dataset.classes
    bundle = bundle_from_network(
        tmp_path / "bundle", training.trained_network(), training.config,
        classes=classes, groups=None, side=32, metrics={},
    )  # fmt: skip
    tensors = load_file(bundle / "model.safetensors").values()
    found = measure_size(training)
    assert found["size_mb"] == pytest.approx(
        sum(t.numel() * t.element_size() for t in tensors) / 1e6
    )


def test_the_arithmetic_is_that_of_convolutions_and_matrices(training: Training) -> None:
    network = training.trained_network()
    total = 0

    def count(module: Any, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        per_output = module.weight[0].numel()
        total += output.numel() * per_output

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network.infer(torch.zeros(1, 3, 32, 32))
    assert total > 1e6
    assert measure_size(training)["macs"] == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("early", [False, True])
def test_a_worker_measures_once_and_reports_at_every_rung(
    run: RunDirectory, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    monkeypatch.setattr(latency, "_MOST", 30)
    config = experiment("model.head=plain", "training.head.epochs=2").defaults()
    task = Task(
        number=0,
        config=config,
        directory=run.trial("search", 0),
        interrupt=run.interrupt_file,
        metric="validation/accuracy",
        others=["size_mb", "validation/nll", "latency_ms"],
        early_latency=early,
        rungs=[1, 2],
        cache_dir=cache_dir,
    )
    worker = TrialWorker(task)
    first, last = worker.step(), worker.step()
    rows = [json.loads(each["others"]) for each in (first, last)]
    epochs = [
        json.loads(line) for line in (task.directory / "epochs.jsonl").read_text().splitlines()
    ]
    assert [row["validation/nll"] for row in rows] == [each["validation/nll"] for each in epochs]
    assert rows[0]["size_mb"] == rows[1]["size_mb"] > 1
    assert ("latency_ms" in rows[0]) == early
    assert rows[1]["latency_ms"] == json.loads(last["latency"])["latency_ms"] > 0
    if early:
        assert rows[0]["latency_ms"] == rows[1]["latency_ms"]
