"""Who answers in a server: OpenVINO or PyTorch, with the same answers."""

from __future__ import annotations

import shutil

import pytest

from gsfl_tune.export import Options, export_run, load_bundle
from gsfl_tune.models.frozen import has_bf16_units
from tests.serve.conftest import jpeg, together

openvino = pytest.importorskip("openvino")


def test_openvino_answers_where_it_is_installed(server, looks):
    assert server.get("/").json["engine"] == "OpenVINO fp32"
    assert looks.get("/").json["engine"] == "OpenVINO fp32"


def test_pytorch_answers_the_same(start, server, served_bundle):
    images = [jpeg(seed=seed) for seed in range(6)]
    with start(served_bundle, "--engine", "torch") as other:
        assert other.get("/").json["engine"] == "PyTorch fp32"
        for image in images:
            (one,), (two,) = (
                each.predict(image, "?top=6").json["predictions"] for each in (server, other)
            )
            assert one["classes"] == two["classes"]
            assert one["probabilities"] == pytest.approx(two["probabilities"], abs=1e-4)


def test_clients_side_by_side_get_what_one_alone_gets(server):
    images = [jpeg(seed=seed) for seed in range(12)]
    alone = [server.predict(image).json["predictions"][0] for image in images]
    found = together(12, lambda number: server.predict(images[number]).json["predictions"][0])
    for one, other in zip(found, alone, strict=True):
        assert one["classes"] == other["classes"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


@pytest.mark.slow
def test_maps_are_refused_when_the_weights_changed_since_the_start(start, whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "bundle")
    with start(path) as server:
        (path / "model.safetensors").write_bytes(b"another model")
        answer = server.send("POST", "/explain", jpeg())
        assert (answer.status, answer.json["error"]) == (500, "internal")
        assert server.predict(jpeg()).status == 200
        code, _, err = server.stop()
    assert code == 0
    assert "damaged or changed since it was exported" in err


@pytest.mark.slow
def test_an_exported_ir_is_served(start, trained_run, cache_dir, tmp_path):
    options = Options(format="openvino", preprocess=True, threads=1, seconds=0.0)
    path = export_run(trained_run.path, tmp_path / "ir", options=options, cache_dir=cache_dir)
    image = jpeg()
    words = ["--precision", "bf16"] if has_bf16_units() else []
    with start(path, *words) as server:
        said = server.get("/").json
        assert said["engine"] == ("OpenVINO bf16" if words else "OpenVINO fp32")
        assert (said["maps"], said["neighbours"]) == (False, False)
        (found,) = server.predict(image, "?top=3").json["predictions"]
    (expected,) = load_bundle(path).predict([image], top=3)
    assert found["probabilities"] == pytest.approx(expected.probabilities, abs=0.05)
