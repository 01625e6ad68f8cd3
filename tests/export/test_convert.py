"""Every format and precision says what the bundle says, wherever and by whomever it is run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from gsfl_tune.bundles.files import sha256
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import BundleError, Options, export_run, load_bundle
from gsfl_tune.export import extras as extras_module
from gsfl_tune.export.build import Parity, compare, require_numbers
from gsfl_tune.export.images import RunImages
from gsfl_tune.export.readers import reader
from gsfl_tune.export.runtimes import ExportedRuntime, TorchRuntime
from gsfl_tune.models import Ensemble
from gsfl_tune.run import RunDirectory
from tests.export.conftest import make_config, make_network

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="session")
def exports(trained_run, cache_dir, tmp_path_factory):
    """Exports once, whoever asks."""
    made = {}

    def export(**options):
        options = {"threads": 1, "seconds": 0.0, **options}
        if options.get("precision") == "int8":
            options = {"calibration": 64, "epochs": 1, **options}
        key = json.dumps(options)
        if key not in made:
            out = tmp_path_factory.mktemp("exports") / "out"
            made[key] = export_run(
                trained_run.path, out, options=Options(**options), cache_dir=cache_dir
            )
        return made[key]

    return export


def probabilities(bundle, squares):
    return bundle.runtime.logits(squares).double().softmax(dim=1).numpy()


def weight_bytes(path):
    """Bytes of the weights alone: of so small a network the graph takes as much."""
    model = next(file for file in sorted(path.glob("model.*")) if file.suffix != ".bin")
    if model.suffix == ".pt2":
        with zipfile.ZipFile(model) as archive:
            return sum(
                entry.file_size
                for entry in archive.infolist()
                if "/data/weights/" in entry.filename or "/data/constants/" in entry.filename
            )
    if model.suffix == ".xml":
        return model.with_suffix(".bin").stat().st_size
    if model.suffix == ".onnx":
        graph = onnx.load(model).graph
        return sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer)
    return model.stat().st_size


def check_table(path, rows, precision):
    info = json.loads((path / "config.json").read_text())["export"]
    assert len(info["table"]) == rows
    for row in info["table"]:
        assert 0 <= row["test"] <= 1
        assert row["bytes"] > 0
        for each, batch in zip(row["latency"], (1, 32), strict=True):
            assert each["batch"] == batch
            assert 0 < each["median"] <= each["p95"]
            assert each["runs"] >= 20
    assert info["precision"] == precision
    assert info["conditions"]["threads"] == 1
    return info


SLOW = pytest.mark.slow
# Runs programs one after the other, each by itself, where this package is not installed.
ALONE = """
import sys
sys.modules["gsfl_tune"] = None
for program in sys.argv[1:]:
    exec(program, {"__name__": "__main__"})
"""


@pytest.mark.parametrize(
    ("format", "preprocess"),
    [
        ("onnx", True),
        pytest.param("onnx", False, marks=SLOW),
        pytest.param("torch-export", True, marks=SLOW),
        pytest.param("torch-export", False, marks=SLOW),
        ("openvino", True),
        pytest.param("openvino", False, marks=SLOW),
    ],
)
def test_fp32_is_what_pytorch_computes(exports, trained_run, squares, format, preprocess):
    path = exports(format=format, preprocess=preprocess)
    expected = probabilities(load_bundle(trained_run.best, "cpu"), squares)
    bundle = load_bundle(path, "cpu")
    # Images are told apart, or the comparison would say nothing.
    assert expected.argmax(axis=1).std() > 1
    for count in (1, 5, 24):
        np.testing.assert_allclose(
            probabilities(bundle, squares[:count]), expected[:count], atol=1e-4
        )
    info = check_table(path, 2, "fp32")
    assert info["parity"]["images"] >= 20
    assert info["parity"]["probabilities"] <= 1e-4
    assert info["table"][0]["test"] == info["table"][1]["test"]
    assert "| PyTorch fp32 |" in (path / "README.md").read_text()


def test_an_onnx_file_says_what_is_needed_to_use_it(exports, trained_run, squares):
    path = exports(format="onnx", preprocess=True)
    session = onnxruntime.InferenceSession(path / "model.onnx")
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("images", "tensor(uint8)", [40, 40, 3])
    assert isinstance(taken.shape[0], str)
    about = session.get_modelmeta().custom_metadata_map
    bundle = load_bundle(trained_run.best, "cpu")
    assert json.loads(about["classes"]) == bundle.classes
    assert json.loads(about["preprocessing"])["side"] == 40
    assert len(json.loads(about["export"])["table"]) == 2
    found = session.run(None, {"images": squares[:7]})[0]
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found, probabilities(bundle, squares[:7]), atol=1e-4)
    assert given.name == "probabilities"


@pytest.mark.parametrize(
    "options",
    [
        {"format": "onnx", "preprocess": True},
        pytest.param({"format": "onnx", "preprocess": False}, marks=SLOW),
        pytest.param({"format": "torch-export", "preprocess": True}, marks=SLOW),
        pytest.param({"format": "torch-export", "preprocess": False}, marks=SLOW),
        {"format": "openvino", "preprocess": True},
        pytest.param({"format": "openvino", "preprocess": False}, marks=SLOW),
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_a_reader_without_this_package_gets_the_same(exports, squares, tmp_path, options):
    path = exports(**options)
    program = reader(options["format"], preprocess=options["preprocess"])
    assert program in (path / "README.md").read_text()
    picture = Image.fromarray(squares[3])
    pierced = picture.copy()
    # What is transparent has colours too, which training does not see.
    pierced.putalpha(Image.fromarray(255 * (squares[3][..., 0] > 90).astype(np.uint8)))
    deep = Image.fromarray(257 * np.asarray(picture.convert("L")).astype(np.uint16))
    files = []
    for name, image in (("plain", picture), ("transparent", pierced), ("deep", deep)):
        files.append(tmp_path / f"{name}.png")
        image.save(files[-1])
    # One process for all of them: most of its time it imports.
    programs = [program.replace("image.jpg", str(file)) for file in files]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *programs],
        cwd=path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = load_bundle(path, "cpu").predict(files, top=1)
    # Without the preprocessing inside, the reader resizes with Pillow, which rounds to bytes.
    tolerance = 1e-4 if options["preprocess"] else 0.05
    for line, answer in zip(done.stdout.splitlines(), expected, strict=True):
        name, probability = line.rsplit(maxsplit=1)
        assert name == answer.classes[0]
        assert float(probability) == pytest.approx(answer.probabilities[0], abs=tolerance)


@pytest.mark.parametrize(
    "format",
    ["safetensors", *(pytest.param(f, marks=SLOW) for f in ("onnx", "torch-export", "openvino"))],
)
def test_fp16_takes_half_the_space(exports, trained_run, squares, format):
    path = exports(format=format, precision="fp16")
    whole = weight_bytes(trained_run.best)
    assert 0.45 * whole < weight_bytes(path) < 0.6 * whole
    expected = probabilities(load_bundle(trained_run.best, "cpu"), squares)
    found = probabilities(load_bundle(path, "cpu"), squares)
    np.testing.assert_allclose(found, expected, atol=0.02)
    check_table(path, 3 if format == "onnx" else 2, "fp16")


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
@pytest.mark.slow
def test_int8_is_smaller_and_says_nearly_the_same(exports, trained_run, squares, format):
    path = exports(format=format, precision="int8", preprocess=True, max_loss=100.0)
    assert weight_bytes(path) < 0.5 * weight_bytes(trained_run.best)
    expected = probabilities(load_bundle(trained_run.best, "cpu"), squares)
    found = probabilities(load_bundle(path, "cpu"), squares)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.7
    # It is int8: rounded numbers are other numbers.
    assert np.abs(found - expected).max() > 1e-4
    info = check_table(path, 3 if format == "onnx" else 2, "int8")
    assert info["refined"] == {}


def test_an_ir_says_what_is_needed_to_use_it(exports, trained_run, squares):
    openvino = pytest.importorskip("openvino")
    path = exports(format="openvino", preprocess=True)
    model = openvino.Core().read_model(path / "model.xml")
    taken, given = model.input(0), model.output(0)
    assert (taken.any_name, given.any_name) == ("images", "probabilities")
    assert taken.element_type == openvino.Type.u8
    assert taken.partial_shape[0].is_dynamic
    assert [side.get_length() for side in list(taken.partial_shape)[1:]] == [40, 40, 3]
    about = {
        key: json.loads(model.get_rt_info(["gsfl_tune", key]).value)
        for key in ("classes", "groups", "preprocessing", "export", "calibration")
    }
    bundle = load_bundle(trained_run.best, "cpu")
    assert about["classes"] == bundle.classes
    assert about["groups"] == bundle.groups
    assert about["preprocessing"]["side"] == 40
    assert about["export"]["parity"]["probabilities"] <= 1e-4
    assert about["calibration"] == bundle.calibration
    # Another program gives it batches of any size.
    found = openvino.compile_model(model, "CPU")(squares[:7])[0]
    np.testing.assert_allclose(found, probabilities(bundle, squares[:7]), atol=0.02)


def test_what_the_run_was_searched_with_comes_along(exports, trained_run):
    path = exports(format="onnx", preprocess=True)
    for name in ("classes.json", "groups.json", "metrics.json"):
        assert (path / name).read_bytes() == (trained_run.best / name).read_bytes()
    bundle = load_bundle(path)
    assert bundle.config["model"]["latent_dim"] == 32
    with pytest.raises(BundleError, match="exported as onnx, which holds no PyTorch network"):
        _ = bundle.network


def test_a_changed_file_is_noticed(exports, tmp_path):
    for format, name in (
        ("onnx", "model.onnx"),
        ("torch-export", "model.pt2"),
        ("openvino", "model.xml"),
        ("openvino", "model.bin"),
    ):
        made = exports(format=format, preprocess=format != "torch-export")
        path = shutil.copytree(made, tmp_path / name)
        content = bytearray((path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (path / name).write_bytes(content)
        with pytest.raises(BundleError, match=f"{name}: damaged or changed"):
            load_bundle(path)


@pytest.mark.parametrize("preprocess", [False, pytest.param(True, marks=SLOW)])
def test_a_program_computes_where_it_is_told_to(exports, preprocess):
    path = exports(format="torch-export", preprocess=preprocess)
    bundle = load_bundle(path, "cpu")
    meta = torch.device("meta")  # stands for a GPU: what stayed on the CPU would be refused
    runtime = ExportedRuntime(
        path / "model.pt2", bundle.preprocessing, inside=preprocess, device=meta
    )
    images = torch.zeros(5, 40, 40, 3, dtype=torch.uint8, device=meta)
    if not preprocess:
        images = torch.zeros(5, 3, 32, 32, device=meta)
    outputs = runtime.run(images)
    assert (outputs.shape, outputs.device) == ((5, len(bundle.classes)), meta)


def test_an_incomplete_or_unreadable_ir_is_told(exports, tmp_path):
    made = exports(format="openvino", preprocess=True)
    path = shutil.copytree(made, tmp_path / "no weights")
    (path / "model.bin").unlink()
    with pytest.raises(BundleError, match=r"not a complete bundle, missing model\.bin"):
        load_bundle(path)
    path = shutil.copytree(made, tmp_path / "no graph")
    (path / "model.xml").write_text("<net")
    config = json.loads((path / "config.json").read_text())
    config["sha256"]["model.xml"] = sha256(b"<net")
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match=r"model\.xml: OpenVINO cannot read it"):
        load_bundle(path)


def test_a_program_with_a_pickle_in_it_is_not_loaded(exports, tmp_path):
    path = shutil.copytree(exports(format="torch-export", preprocess=False), tmp_path / "out")
    marker = tmp_path / "it ran"
    evil = f"cos\nsystem\n(S'touch \"{marker}\"'\ntR.".encode()
    with zipfile.ZipFile(path / "model.pt2") as old, zipfile.ZipFile(tmp_path / "new", "w") as new:
        for name in old.namelist():
            replaced = "sample_inputs" in name
            new.writestr(name, evil if replaced else old.read(name))
    (path / "model.pt2").write_bytes((tmp_path / "new").read_bytes())
    config = json.loads((path / "config.json").read_text())
    config["sha256"]["model.pt2"] = sha256((path / "model.pt2").read_bytes())
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match="not an archive of torch"):
        load_bundle(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"precision": "int8"}, "int8 with --format safetensors, allowed fp32, fp16"),
        ({"preprocess": True}, "allowed with onnx, torch-export, openvino"),
        ({"format": "tflite"}, "allowed safetensors, onnx, torch-export, openvino"),
        ({"format": "openvino", "precision": "int8"}, "int8 with --format openvino, allowed fp32"),
        ({"format": "onnx", "precision": "int4"}, "allowed fp32, fp16, int8"),
        ({"prune": 1.5}, "--prune: found 1.5, allowed 0.05 to 0.9"),
        ({"format": "onnx", "threads": 0}, "--threads: found 0, allowed at least 1"),
        ({"format": "onnx", "max_loss": -1.0}, "--max-loss: found -1, allowed at least 0"),
        ({"epochs": 10}, "--epochs: found 10 without --precision int8 or --prune"),
        ({"calibration": 64}, "--calibration: found 64 without --precision int8"),
        ({"format": "onnx", "max_loss": 2.0}, "--max-loss: found 2 without --precision int8"),
        ({"flip_anyway": True, "epochs": 5}, "--epochs: found 5 without --precision int8"),
    ],
)
def test_what_does_not_go_together_is_refused(trained_run, tmp_path, options, complaint):
    with pytest.raises(UserError, match=complaint):
        export_run(trained_run.path, tmp_path / "out", options=Options(**options))
    assert not (tmp_path / "out").exists()


def test_shared_tensors_belong_to_the_weights_as_trained(trained_run, tmp_path):
    with pytest.raises(UserError, match="--with-shared: found with another format"):
        export_run(
            trained_run.path, tmp_path / "out", with_shared=True, options=Options(format="onnx")
        )


def test_a_missing_extra_is_one_line_with_the_command(trained_run, tmp_path, monkeypatch):
    monkeypatch.setattr(extras_module, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        export_run(trained_run.path, tmp_path / "out", options=Options(format="onnx"))
    assert str(caught.value).splitlines() == [
        "--format onnx needs onnx and onnxscript and onnxruntime: run  "
        "pip install 'gsfl-tune[export]'"
    ]


def test_openvino_is_in_an_extra_of_its_own(trained_run, tmp_path, monkeypatch):
    monkeypatch.setattr(extras_module, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        export_run(trained_run.path, tmp_path / "out", options=Options(format="openvino"))
    said = "--format openvino needs openvino: run  pip install 'gsfl-tune[cpu]'"
    assert str(caught.value) == said


def test_images_that_are_gone_are_told(trained_run, tmp_path, cache_dir):
    run = RunDirectory(shutil.copytree(trained_run.path, tmp_path / "run"))
    config = json.loads((run.best / "config.json").read_text())
    config["experiment"]["data"] |= {"source": "folder", "path": str(tmp_path / "gone")}
    (run.best / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"gone(.|\n)*--data PATH"):
        export_run(run.path, tmp_path / "out", options=Options(format="onnx"), cache_dir=cache_dir)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("recurrent", "limit"), [(False, 1e-4), (True, 1e-3)])
def test_regions_may_amplify_rounding(trained_run, cache_dir, recurrent, limit):
    images = RunImages.open(load_bundle(trained_run.best, "cpu"), cache_dir=cache_dir)
    network = make_network(make_config(recurrent=recurrent, backbone="test_efficientnet"))
    for together in (network, Ensemble([network], flip=True)):
        found = compare(TorchRuntime(network, images.preprocessing), together, images)
        assert found.limit == limit
    assert not found.holds  # of one view and of two


def test_numbers_that_fp16_does_not_hold_are_refused(trained_run, cache_dir, tmp_path):
    run = RunDirectory(shutil.copytree(trained_run.path, tmp_path / "run"))
    state = load_file(run.best / "model.safetensors")
    state["head.classifier.bias"] += 70_000
    save_file(state, run.best / "model.safetensors")
    config = json.loads((run.best / "config.json").read_text())
    config["sha256"]["model.safetensors"] = sha256((run.best / "model.safetensors").read_bytes())
    (run.best / "config.json").write_text(json.dumps(config))
    options = Options(precision="fp16", threads=1, seconds=0.0)
    with pytest.raises(UserError, match=r"head\.classifier\.bias has numbers above 65,504"):
        export_run(run.path, tmp_path / "out", options=options, cache_dir=cache_dir)
    with pytest.raises(UserError, match="its answers are not numbers; allowed: fp32"):
        require_numbers(Parity(64, float("nan"), None), options)
