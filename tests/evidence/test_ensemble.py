"""All seeds as one model, and mirrored images: the mean of probabilities, in every format."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from gsfl_tune.conclusion import calibrated, ensemble_of
from gsfl_tune.data import prepare
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import BundleError, Options, export_run, load_bundle
from gsfl_tune.models import Ensemble
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.results import read_results, write_results
from gsfl_tune.serve.model import Model, Question
from gsfl_tune.training.predictions import load_predictions
from tests.export.conftest import CLASSES, make_config, make_network

FAST = {"threads": 1, "seconds": 0.0}


@pytest.fixture
def run(run_copy) -> RunDirectory:
    return RunDirectory(run_copy)


def test_the_mean_of_probabilities_is_what_is_inferred():
    networks = [make_network(make_config(latent_dim=size)) for size in (24, 16)]
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    whole = Ensemble(networks, flip=True)
    with torch.inference_mode():
        expected = torch.stack(
            [each.infer(view).softmax(1) for each in networks for view in (images, images.flip(3))]
        ).mean(0)
        found = whole.infer(images).exp()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.shape == (3, len(CLASSES))


def test_seeds_of_a_frozen_backbone_are_one_backbone_and_heads(run, tmp_path, cache_dir):
    out = export_run(
        run.path, tmp_path / "out", options=Options(ensemble=True, **FAST), cache_dir=cache_dir
    )
    bundle = load_bundle(out, "cpu")
    about = bundle.export["ensemble"]
    assert about == {
        "members": 2,
        "seeds": [1, 2],
        "one_backbone": True,
        "flip": False,
        "calibrated": False,
    }
    single = (run.best / "model.safetensors").stat().st_size
    assert (out / "model.safetensors").stat().st_size < 1.5 * single
    single_row, row = bundle.export["table"]
    assert (single_row["name"], row["name"]) == ("PyTorch fp32", "safetensors fp32 x2")
    # What the search said at its end, from the predictions of its retrains.
    files = [run.finals / "search-3" / "retrain" / f"seed-{seed}" / "test.npz" for seed in (1, 2)]
    tested = [load_predictions(file) for file in files]
    told = ensemble_of([1, 2], [], tested)
    assert row["test"] == pytest.approx(told.test["accuracy"].mean)
    assert row["nll"] == pytest.approx(told.test["nll"].mean, rel=1e-3)
    # With costs, as of every other model: an error that costs 1 is the rate of errors.
    costs = 1.0 - np.eye(tested[0].logits.shape[1])
    dear = ensemble_of([1, 2], [], tested, costs).test
    assert dear["expected_cost"].mean == pytest.approx(1 - dear["accuracy"].mean)
    assert row["ece"] == pytest.approx(told.test["ece"].mean, abs=1e-3)
    with pytest.raises(BundleError, match=r"an ensemble of 2 network\(s\)"):
        _ = bundle.network
    assert "the mean of the probabilities of 2 seeds" in (out / "README.md").read_text()


def test_its_own_temperature_is_in_all_members(run, tmp_path, cache_dir):
    results = read_results(run.results_file)
    files = [run.finals / "search-3" / "retrain" / f"seed-{seed}" / "test.npz" for seed in (1, 2)]
    tested = [load_predictions(file) for file in files]
    # Any predictions with errors in them do for a validation part here: right three times in four,
    # each seed by itself, so that the mean of two is surer than it should be in another degree.
    validations = []
    for seed, each in enumerate(tested):
        right = np.random.default_rng(seed).random(len(each.labels)) < 0.75
        known = each.logits.copy()
        known[np.flatnonzero(right), each.labels[right]] += 4
        validations.append(replace(each, logits=known))
    ensemble = ensemble_of([1, 2], validations, tested)
    assert ensemble.calibration.temperature != calibrated(validations, tested).temperature
    write_results(run.results_file, replace(results, ensemble=ensemble))
    out = export_run(
        run.path, tmp_path / "out", options=Options(ensemble=True, **FAST), cache_dir=cache_dir
    )
    bundle = load_bundle(out, "cpu")
    assert bundle.calibration["temperature"] == ensemble.calibration.temperature
    config = Config.model_validate(bundle.config)
    test = prepare(config.data, side=bundle.preprocessing.side, cache_dir=cache_dir).test
    assert bundle.evaluate(test)["nll"] == pytest.approx(
        ensemble.calibration.after["nll"].mean, rel=1e-3
    )
    assert bundle.evaluate(test)["ece"] == pytest.approx(
        ensemble.calibration.after["ece"].mean, abs=2e-3
    )


@pytest.mark.slow
def test_one_onnx_graph_holds_all_seeds_and_both_views(run, tmp_path, cache_dir):
    pytest.importorskip("onnxruntime")
    options = {"ensemble": True, "flip_anyway": True, **FAST}
    plain = export_run(
        run.path, tmp_path / "plain", options=Options(**options), cache_dir=cache_dir
    )
    onnx = export_run(
        run.path,
        tmp_path / "onnx",
        options=Options(format="onnx", preprocess=True, **options),
        cache_dir=cache_dir,
    )
    bundles = [load_bundle(path, "cpu") for path in (plain, onnx)]
    side = bundles[0].preprocessing.side
    squares = np.random.default_rng(0).integers(0, 256, (5, side, side, 3), dtype=np.uint8)
    first, second = (each.runtime.logits(squares).softmax(1).numpy() for each in bundles)
    np.testing.assert_allclose(second, first, atol=1e-4)
    # Mirrored images are in it: what is mirrored is answered alike.
    mirrored = bundles[1].runtime.logits(squares[:, :, ::-1].copy()).softmax(1).numpy()
    np.testing.assert_allclose(mirrored, second, atol=0.02)
    assert [row["name"] for row in bundles[1].export["table"]] == [
        "PyTorch fp32",
        "PyTorch fp32 x2 flip",
        "onnx fp32 x2 flip",
    ]
    served = Model(bundles[0])
    served.quicken()
    answers = served.answer([Question(square, 1) for square in squares])
    np.testing.assert_allclose(
        [each.probabilities[0] for each in answers], first.max(axis=1), atol=1e-4
    )


def test_mirroring_is_refused_where_the_run_was_not_trained_on_it(run, tmp_path, cache_dir):
    with pytest.raises(UserError, match=r"--flip: found a run with data.augment.flip: false"):
        export_run(
            run.path, tmp_path / "out", options=Options(flip=True, **FAST), cache_dir=cache_dir
        )
    out = export_run(
        run.path,
        tmp_path / "out",
        options=Options(flip_anyway=True, **FAST),
        cache_dir=cache_dir,
    )
    bundle = load_bundle(out, "cpu")
    assert bundle.export["ensemble"]["members"] == 1
    assert [row["name"] for row in bundle.export["table"]][-1] == "safetensors fp32 flip"
    assert "crops" not in bundle.export["ensemble"]


@pytest.mark.slow
def test_corners_are_seen_too_in_every_form(run, tmp_path, cache_dir):
    pytest.importorskip("onnxruntime")
    bundles = []
    for name, options in (
        ("crops", {"crops": True}),
        ("onnx", {"crops": True, "format": "onnx"}),
        ("plain", {}),
    ):
        path = export_run(
            run.path, tmp_path / name, options=Options(**options, **FAST), cache_dir=cache_dir
        )
        bundles.append(load_bundle(path, "cpu"))
    side = bundles[0].preprocessing.side
    squares = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), dtype=np.uint8)
    first, second, plain = (each.runtime.logits(squares).softmax(1).numpy() for each in bundles)
    np.testing.assert_allclose(second, first, atol=1e-4)
    assert np.abs(plain - first).max() > 1e-4
    assert bundles[0].export["ensemble"]["crops"] is True
    assert [row["name"] for row in bundles[1].export["table"]][-1] == "onnx fp32 crops"
    card = (tmp_path / "crops" / "README.md").read_text()
    assert "the mean of the probabilities of the image and its four corners" in card


def test_models_that_are_gone_are_named(run, tmp_path):
    (run.finals / "search-3" / "retrain" / "seed-2" / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match=r"models of seeds 2 are gone(.|\n)*seed-2"):
        export_run(run.path, tmp_path / "out", options=Options(ensemble=True))
    assert not (tmp_path / "out").exists()


def test_one_seed_is_no_ensemble(run, tmp_path):
    results = read_results(run.results_file)
    winner = replace(results.winner, seeds=[1])
    write_results(run.results_file, replace(results, winner=winner))
    with pytest.raises(UserError, match="retrained one seed, allowed after"):
        export_run(run.path, tmp_path / "out", options=Options(ensemble=True))
    assert ensemble_of([1], [], [object()]) is None


@pytest.mark.parametrize(
    ("options", "further", "complaint"),
    [
        ({"precision": "int8", "format": "onnx"}, {}, "--precision: found int8 with --ensemble"),
        ({"prune": 0.3}, {}, "--prune: found with --ensemble"),
        ({}, {"with_shared": True}, "--with-shared: found with another format"),
        ({}, {"best_of_all": True}, "--ensemble: found with --best-of-all"),
        ({}, {"pick": 0.5}, "--ensemble: found with --pick"),
    ],
)
def test_what_does_not_go_together_is_refused(run, tmp_path, options, further, complaint):
    with pytest.raises(UserError, match=complaint):
        export_run(run.path, tmp_path / "out", options=Options(ensemble=True, **options), **further)


def test_tensors_that_belong_to_no_member_are_told(run, tmp_path, cache_dir):
    out = export_run(
        run.path, tmp_path / "out", options=Options(ensemble=True, **FAST), cache_dir=cache_dir
    )
    path = shutil.copytree(out, tmp_path / "fewer")
    config = json.loads((path / "config.json").read_text())
    config["export"]["ensemble"]["members"] = 1
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match="belongs to none of 1 members"):
        load_bundle(path, "cpu")
