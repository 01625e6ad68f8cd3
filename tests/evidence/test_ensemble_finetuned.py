"""Seeds with trained backbones as one model: what the search says of it, and what is exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gsfl_tune.conclusion import ensemble_of
from gsfl_tune.data import prepare
from gsfl_tune.evidence import Retrained
from gsfl_tune.experiment.config import Config
from gsfl_tune.export import Options, export_run, load_bundle
from gsfl_tune.export.measure import Measurement, cells
from gsfl_tune.report import load_results
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.results import Ensemble, read_results
from gsfl_tune.training import load_predictions
from tests.report.test_page import page_of
from tests.report.test_tables import text_of

from .conftest import FINETUNE, finish, small_config

FAST = {"threads": 1, "seconds": 0.0}


def ensemble(winner: Retrained) -> Ensemble | None:
    return ensemble_of(list(winner.directories), [], winner.predictions())


@pytest.fixture(scope="module")
def run(workspace, tmp_path_factory) -> RunDirectory:
    config = small_config(
        training={"head": {"epochs": 8, "learning_rate": 0.01, "batch_size": 16}, "device": "cpu",
                  "precision": "fp32", "finetune": FINETUNE},
    )  # fmt: skip
    made = RunDirectory(tmp_path_factory.mktemp("finetuned") / "small")
    return RunDirectory(finish(workspace, made, config, ensemble=ensemble))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory, cache_dir) -> Path:
    out = tmp_path_factory.mktemp("exported") / "out"
    return export_run(run.path, out, options=Options(ensemble=True, **FAST), cache_dir=cache_dir)


def test_results_and_report_have_the_ensemble_beside_the_single_model(run):
    results = read_results(run.results_file)
    assert results.ensemble is not None
    test = results.ensemble.test
    assert test["nll"].mean != results.winner.test["nll"].mean
    accuracy, nll = f"{100 * test['accuracy'].mean:.1f} %", f"{test['nll'].mean:.3f}"
    lines = text_of(run.path).splitlines()
    single = next(place for place, line in enumerate(lines) if line.startswith("winner (2 seeds)"))
    row = next(line for line in lines[single:] if line.startswith("ensemble of 2"))
    assert accuracy in row
    assert nll in row
    assert f"{results.winner.test['nll'].mean:.3f}" in lines[single]
    table = page_of(run.path).text("models-table")
    shown = table.partition("ensemble of the winner's 2 seeds")[2]
    assert shown.split()[:2] == accuracy.split()
    assert nll in shown
    assert load_results(run.path).to_json()["ensemble"]["test"]["nll"]["mean"] == test["nll"].mean


def test_the_export_is_the_mean_of_probabilities_of_trained_backbones(run, exported, cache_dir):
    bundle = load_bundle(exported, "cpu")
    assert bundle.export["ensemble"]["members"] == 2
    assert bundle.export["ensemble"]["one_backbone"] is False
    files = [run.finals / "search-3" / "retrain" / f"seed-{seed}" / "test.npz" for seed in (1, 2)]
    logits = np.stack([load_predictions(file).logits for file in files]).astype(np.float64)
    exponents = np.exp(logits - logits.max(axis=2, keepdims=True))
    each = exponents / exponents.sum(axis=2, keepdims=True)
    assert np.abs(each[0] - each[1]).max() > 0.05  # two networks, not one twice
    config = Config.model_validate(bundle.config)
    test = prepare(config.data, side=bundle.preprocessing.side, cache_dir=cache_dir).test
    squares = np.asarray(test.gather(np.arange(len(test))))
    found = bundle.runtime.logits(squares).softmax(1).numpy()
    np.testing.assert_allclose(found, each.mean(axis=0), atol=1e-3)


def test_the_export_measures_the_ensemble_beside_the_single_model(run, exported):
    single, row = load_bundle(exported, "cpu").export["table"]
    assert (single["name"], row["name"]) == ("PyTorch fp32", "safetensors fp32 x2")
    results = read_results(run.results_file)
    assert results.ensemble is not None
    assert row["test"] == pytest.approx(results.ensemble.test["accuracy"].mean)
    assert row["nll"] == pytest.approx(results.ensemble.test["nll"].mean, rel=1e-3)
    assert single["test"] == pytest.approx(results.winner.test["accuracy"].values[0])
    assert single["nll"] == pytest.approx(results.winner.test["nll"].values[0], rel=1e-3)
    # Each seed has its own backbone, and each image goes through both.
    assert row["bytes"] == (exported / "model.safetensors").stat().st_size > 1.8 * single["bytes"]
    assert all(each["median"] > 0 for own in (single, row) for each in own["latency"])
    card = (exported / "README.md").read_text()
    for line in cells([Measurement.from_json(own) for own in (single, row)]):
        assert " | ".join(line) in card
