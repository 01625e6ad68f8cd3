"""A bundle's temperature is in its weights, whatever reads them; its thresholds lie beside."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from gsfl_tune.data import center_crop
from gsfl_tune.data.image_file import load_square
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import (
    Options,
    bundle_from_network,
    export_run,
    exported_file,
    load_bundle,
    onnx_file,
    openvino_file,
)
from gsfl_tune.export.graph import Deployed
from gsfl_tune.export.prune import prune
from gsfl_tune.export.runtimes import ExportedRuntime, OnnxRuntime, OpenvinoRuntime, TorchRuntime
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.results import Calibration, Rejection, Score
from tests.export.conftest import CLASSES, GROUPS, METRICS, SIDE, make_config, make_network

SCORES = {"nll": Score.of([0.9]), "ece": Score.of([0.2]), "accuracy": Score.of([0.5])}
CALIBRATION = Calibration(
    temperature=2.5,
    images=40,
    seeds=2,
    wrong=30,
    before=SCORES,
    after=SCORES | {"nll": Score.of([0.7]), "ece": Score.of([0.05])},
    rejections=[
        Rejection(0.5, 0.35, 0.52, 0.08, 0.48, 0.1),
        Rejection(0.8, 0.6, 0.8, 0.3, 0.77, 0.33),
    ],
)


@pytest.fixture
def calibrated(tmp_path, config, network):
    return bundle_from_network(
        tmp_path / "calibrated", network, config, classes=CLASSES, groups=GROUPS, side=SIDE,
        metrics=METRICS, calibration=CALIBRATION,
    )  # fmt: skip


@pytest.fixture
def squares(images):
    return np.stack([load_square(each, SIDE)[0] for each in images])


def test_logits_are_those_of_the_network_over_the_temperature(calibrated, bundle_path, squares):
    raw = load_bundle(bundle_path, "cpu").runtime.logits(squares)
    found = load_bundle(calibrated, "cpu").runtime.logits(squares)
    np.testing.assert_allclose(found, raw / 2.5, rtol=1e-4, atol=1e-5)
    assert (found.argmax(1) == raw.argmax(1)).all()


def test_the_configuration_and_the_card_say_what_was_done(calibrated, bundle_path):
    about = json.loads((calibrated / "config.json").read_text())["calibration"]
    assert (about["temperature"], about["images"], about["seeds"]) == (2.5, 40, 2)
    assert about["rejections"][0] == {
        "errors": 0.5, "threshold": 0.35, "rejected_errors": 0.52, "rejected_right": 0.08,
    }  # fmt: skip
    card = (calibrated / "README.md").read_text()
    assert "ECE was 0.2000 before and 0.0500 after, NLL 0.9000 and 0.7000." in card
    assert "NLL is higher with it" not in card
    assert "52 % of the errors on validation and 8.0 % of the right answers" in card
    plain = (bundle_path / "README.md").read_text()
    assert "## Calibration" not in plain
    assert "without calibration" in plain


def test_a_temperature_with_which_test_images_are_answered_worse_is_told(tmp_path, config, network):
    worse = SCORES | {"nll": Score.of([1.4])}
    path = bundle_from_network(
        tmp_path / "worse", network, config, classes=CLASSES, groups=GROUPS, side=SIDE,
        metrics=METRICS, calibration=Calibration(2.5, 40, 1, 0, SCORES, worse),
    )  # fmt: skip
    card = (path / "README.md").read_text()
    assert "**NLL is higher with it**" in card
    assert "there is no threshold" in card
    with pytest.raises(UserError, match="no wrong answer to choose one by"):
        load_bundle(path, "cpu").threshold("auto")


def test_what_is_below_the_threshold_is_unknown(calibrated, images):
    bundle = load_bundle(calibrated, "cpu")
    plain = bundle.predict(images)
    assert {each.unknown for each in plain} == {None}
    assert "unknown" not in plain[0].to_json()
    middle = float(np.median([each.probabilities[0] for each in plain]))
    found = bundle.predict(images, threshold=middle)
    assert [each.unknown for each in found] == [each.probabilities[0] < middle for each in plain]
    assert {each.unknown for each in found} == {True, False}
    assert [each.classes for each in found] == [each.classes for each in plain]
    assert bundle.threshold("auto") == 0.35
    assert bundle.threshold("auto:0.8") == 0.6
    assert bundle.predict(images, threshold="auto")[0].unknown is not None


@pytest.mark.parametrize("asked", ["auto:0.7", "auto:", "auto:x", "1.5", "often", "nan", "-0.1"])
def test_a_threshold_that_there_is_not_is_refused_with_what_there_is(calibrated, asked):
    with pytest.raises(UserError, match=r"--threshold: found .*allowed"):
        load_bundle(calibrated, "cpu").threshold(asked, "--threshold")


def test_a_bundle_of_an_older_version_has_no_threshold_of_its_own(bundle_path, images):
    bundle = load_bundle(bundle_path, "cpu")
    with pytest.raises(UserError, match="by an older version"):
        bundle.predict(images, threshold="auto")
    assert bundle.predict(images, threshold=1.0)[0].unknown is True


@pytest.mark.parametrize(
    "kind",
    [
        "onnx",
        "openvino",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("fp16", "onnx int8", "torch-export", "pruned")
        ),
    ],
)
def test_every_kind_of_file_holds_the_temperature(tmp_path, squares, kind):
    config = make_config(backbone="test_efficientnet")
    arguments = {"classes": CLASSES, "groups": GROUPS, "side": SIDE, "metrics": {}}
    network = make_network(config)
    bundles = [
        bundle_from_network(tmp_path / name, network, config, calibration=used, **arguments)
        for name, used in (("raw", None), ("calibrated", CALIBRATION))
    ]
    # What rounds or leaves out channels has other logits than the network as it was.
    plain = "pytorch" if kind in ("onnx", "openvino", "torch-export") else kind
    raw, found = (
        _logits(path, squares, of) for path, of in zip(bundles, (plain, kind), strict=True)
    )
    # Rounding takes a little, a temperature that is lost or applied twice more than half.
    tolerance = 0.05 if kind in ("onnx int8", "fp16") else 1e-3
    assert float((found - raw / 2.5).abs().max()) < tolerance * float((raw / 2.5).abs().max())
    assert float(raw.std()) > 0.1


def _logits(path: Path, squares: np.ndarray, kind: str) -> torch.Tensor:
    """Logits of a bundle's network after it has become a file of another kind."""
    bundle = load_bundle(path, "cpu")
    preprocessing = bundle.preprocessing
    if kind == "pytorch":
        return bundle.runtime.logits(squares)
    module = Deployed(bundle.network, preprocessing, inside=False, half=kind == "fp16")
    if kind == "pruned":
        pytest.importorskip("torch_pruning")
        pruned = prune(bundle.network, 0.3, preprocessing.image_size)
        return TorchRuntime(pruned, preprocessing).logits(squares)
    file = path / "file"
    if kind == "torch-export":
        exported_file.write_program(exported_file.capture(module, module.example()), file, {})
        return ExportedRuntime(file, preprocessing, inside=False).logits(squares)
    if kind == "openvino":
        pytest.importorskip("openvino")
        file = file.with_suffix(".xml")
        openvino_file.write_model(openvino_file.convert_module(module), file, half=False)
        return OpenvinoRuntime(file, preprocessing, inside=False).logits(squares)
    pytest.importorskip("onnxruntime")
    onnx_file.write_onnx(module, file)
    if kind == "onnx int8":
        p = preprocessing
        inputs = center_crop(torch.from_numpy(squares), p.image_size, p.mean, p.std).numpy()
        onnx_file.quantise_onnx(file, path / "int8", iter([inputs]))
        file = path / "int8"
    return OnnxRuntime(file, preprocessing, inside=False).logits(squares)


def test_exports_keep_temperature_and_thresholds(calibrated, tmp_path, images):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.experiment_file.write_text("name: zoo\n")
    calibrated.rename(run.best)
    out = export_run(run.path, tmp_path / "out", options=Options())
    assert load_bundle(out, "cpu").calibration == load_bundle(run.best, "cpu").calibration
    assert load_bundle(out, "cpu").threshold("auto") == 0.35


def test_a_calibration_survives_json(finished_results):
    content = finished_results.to_json()
    again = type(finished_results).from_json(json.loads(json.dumps(content)))
    assert again.winner.calibration == CALIBRATION
    assert again.winner.calibration.half.threshold == 0.35
    assert asdict(again) == asdict(finished_results)


@pytest.fixture
def finished_results():
    from dataclasses import replace

    from gsfl_tune.run.results import Ensemble
    from tests.report.conftest import make_results

    results = make_results()
    return replace(
        results,
        winner=replace(results.winner, calibration=CALIBRATION),
        ensemble=Ensemble([1, 2, 3], SCORES, CALIBRATION),
    )
