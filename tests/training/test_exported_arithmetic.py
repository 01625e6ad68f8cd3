"""What a run says of its bundle is what the bundle answers, in whatever precision was trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gsfl_tune.evidence import measure_probe, probe_network
from gsfl_tune.evidence.trained import Retrained
from gsfl_tune.experiment.config import Config
from gsfl_tune.export import bundle_from_network, load_bundle
from gsfl_tune.models import Network, SplitBackbone
from gsfl_tune.models.frozen import has_bf16_units
from gsfl_tune.search import Job
from gsfl_tune.search.workers.retrain import run_job
from gsfl_tune.search.workers.settings import WorkerSettings
from gsfl_tune.training import Training, Workspace, load_predictions

from .conftest import tiny_config
from .test_training import run

units = pytest.mark.skipif(not has_bf16_units(), reason="needs a CPU that multiplies bf16")

BF16 = {"model": {"feature_precision": "bf16"}}
PROJECTED = {"pooling": "bilinear", "pooling_channels": 16}
LAST = {"head": {"epochs": 1}, "finetune": {"epochs": 2, "blocks": 2, "batch_size": 24}}

CASES = {
    "features": pytest.param(BF16, marks=units),
    "projected features": pytest.param(
        {"model": BF16["model"] | PROJECTED}, marks=units
    ),
    "stored in half": pytest.param({"training": {"cache_precision": "fp16"}}),
    "last blocks": pytest.param({"training": {"precision": "bf16", **LAST}}),
    "all blocks": pytest.param(
        {"training": {"precision": "bf16", "finetune": {"epochs": 2, "batch_size": 24}}}
    ),
    "cached activations": pytest.param(
        {
            "data": {"views": 2},
            "training": {"precision": "bf16", "cache_precision": "fp16", "ema": 0.5, **LAST},
        }
    ),
}  # fmt: skip


def answers(folder: Path, network: Network, config: Config, workspace: Workspace, part: str) -> Any:
    """Writes a bundle, and asks it for a part's images."""
    dataset = workspace.dataset
    bundle = bundle_from_network(
        folder,
        network,
        config,
        classes=dataset.classes,
        groups=None,
        side=dataset.pool.side,
        metrics={},
    )
    images = dataset.test if part == "test" else dataset.pool
    index = np.arange(len(images)) if part == "test" else dataset.validation_index
    squares = np.asarray(images.gather(index))
    return load_bundle(bundle, device="cpu").runtime.logits(squares).numpy()


def cases() -> Iterator[Any]:
    """Yields all of both parts; of validation images, all but one of each stage are slow."""
    for name, case in CASES.items():
        for part in ("test", "validation"):
            few = part == "test" or name in ("features", "cached activations")
            marks = [*case.marks, *([] if few else [pytest.mark.slow])]
            yield pytest.param(*case.values, part, marks=marks, id=f"{part}-{name}")


@pytest.mark.parametrize(("changes", "part"), cases())
def test_a_bundle_answers_as_the_run_says(tmp_path, cache_dir, workspace, changes, part):
    config = tiny_config(**changes)
    fit = "train+validation" if part == "test" else "train"
    folder = tmp_path / "seed-1"
    job = Job(name="one", config=config, seed=1, directory=folder, fit=fit, test=True)
    settings = WorkerSettings(interrupt=tmp_path / "interrupt", cache_dir=cache_dir)
    result = run_job(job, settings)
    assert result is not None
    told = load_predictions(folder / f"{part}.npz")
    assert told.metrics()["accuracy"] == result[part]["accuracy"]
    training = Training(config, workspace, folder, seed=1, fit=fit)
    assert training.look()
    found = answers(tmp_path / "bundle", training.trained_network(), config, workspace, part)
    np.testing.assert_allclose(found, told.logits, atol=1e-4)
    # In the arithmetic of the training they are others.
    off = np.abs(found - training.predict(part).logits).max()
    assert off > 4 * np.abs(found - told.logits).max()
    # The evidence examines the same network.
    if part == "test":
        (model,) = Retrained(config, {1: folder}).models(workspace, 1)
        np.testing.assert_allclose(model.predictions().logits, told.logits, atol=1e-4)


@pytest.mark.parametrize("changes", [CASES["features"], CASES["stored in half"]])
def test_so_does_the_bundle_of_a_linear_probe(tmp_path, workspace, changes):
    config = tiny_config(**changes)
    yardstick = measure_probe(workspace, config)
    network = probe_network(workspace, config, yardstick.probe)
    found = answers(tmp_path / "bundle", network, config, workspace, "test")
    np.testing.assert_allclose(found, yardstick.logits, atol=1e-4)


def test_only_tested_and_validated_images_are_computed_again(tmp_path, workspace):
    # With caches of its own: other tests compute the same.
    workspace = Workspace(workspace.dataset, tmp_path / "cache", workspace.device)
    training = Training(tiny_config(training={"cache_precision": "fp16"}), workspace, tmp_path)
    training.run_epoch()

    def files() -> set[Path]:
        return set((workspace.cache_dir / "features").glob("*.npy"))

    dataset = workspace.dataset
    for part, count in (("validation", len(dataset.validation_index)), ("test", len(dataset.test))):
        before = files()
        training.predict_as_exported(part)
        assert [len(np.load(file)) for file in files() - before] == [count], part


def test_frozen_blocks_are_made_exact_once(tmp_path, workspace, monkeypatch):
    config = tiny_config(training={"precision": "bf16", **LAST})
    training = run(Training(config, workspace, tmp_path))
    made: list[object] = []
    frozen_prefix = SplitBackbone.frozen_prefix

    def counted(self: SplitBackbone, *arguments: Any) -> Any:
        made.append(self)
        return frozen_prefix(self, *arguments)

    monkeypatch.setattr(SplitBackbone, "frozen_prefix", counted)
    first = training.predict_as_exported("test").logits
    training.predict_as_exported("validation")
    training.trained_features("test", np.arange(len(workspace.dataset.test)))
    assert len(made) == 1
    np.testing.assert_array_equal(training.predict_as_exported("test").logits, first)
    # The training itself goes on with its own.
    assert not np.array_equal(training.predict("test").logits, first)


@units
def test_blocks_that_are_all_trained_have_no_frozen_ones_in_less(tmp_path, workspace):
    stage = {"finetune": {"epochs": 1, "batch_size": 24}}
    training = run(Training(tiny_config(**BF16, training=stage), workspace, tmp_path))
    assert training.context.frozen_bf16
    assert training.predict_as_exported("validation") is training.validated
    stage["finetune"]["blocks"] = 2
    apart = run(Training(tiny_config(**BF16, training=stage), workspace, tmp_path / "apart"))
    assert apart.predict_as_exported("validation") is not apart.validated


def test_a_run_in_fp32_computes_nothing_twice(tmp_path, workspace):
    training = Training(tiny_config(), workspace, tmp_path)
    training.run_epoch()
    assert training.predict_as_exported("validation") is training.validated
    index = np.arange(len(workspace.dataset.test))
    exact = workspace.exact_features(training.config, "test", index)
    assert torch.equal(exact, workspace.features(training.config, "test"))
    extractor = workspace.extractor(training.config)
    assert extractor.in_full() is extractor
