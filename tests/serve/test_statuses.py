"""An ONNX bundle behind the server, and what clients are told when something is wrong with it."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.bundles.files import sha256
from gsfl_tune.export import Options, export_run, load_bundle
from tests import warm
from tests.serve.conftest import Server, encoded, jpeg
from tests.waiting import wait_until

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(trained_run: Any, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = Options(format="onnx", preprocess=True, threads=1, seconds=0.0)
    out = tmp_path_factory.mktemp("served") / "onnx"
    return export_run(trained_run.path, out, options=options, cache_dir=cache_dir)


@pytest.fixture(scope="module")
def moody(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network, which reads beyond the end of a table where an image has white in it."""
    path = shutil.copytree(exported, tmp_path_factory.mktemp("moody") / "onnx")
    model = onnx.load(path / "model.onnx")
    (given,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["calm" if name == given.name else name for name in node.output]
    helper = onnx.helper
    number = onnx.TensorProto
    model.graph.initializer.extend(
        [
            helper.make_tensor("white", number.FLOAT, [], [254.0]),
            helper.make_tensor("table", number.FLOAT, [1], [1.0]),
        ]
    )
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["images"], ["as_numbers"], to=number.FLOAT),
            helper.make_node("ReduceMax", ["as_numbers"], ["lightest"], keepdims=0),
            helper.make_node("Greater", ["lightest", "white"], ["is_white"]),
            helper.make_node("Cast", ["is_white"], ["place"], to=number.INT64),
            helper.make_node("Gather", ["table", "place"], ["one"]),
            helper.make_node("Mul", ["calm", "one"], [given.name]),
        ]
    )
    onnx.save(model, path / "model.onnx")
    config = json.loads((path / "config.json").read_text())
    config["sha256"]["model.onnx"] = sha256((path / "model.onnx").read_bytes())
    (path / "config.json").write_text(json.dumps(config))
    return path


def _grey(lightness: int) -> bytes:
    return encoded(Image.new("RGB", (60, 60), (lightness,) * 3), "PNG")


@pytest.mark.slow
def test_an_onnx_bundle_answers_as_the_command_line_does(start: Any, exported: Path) -> None:
    bundle = load_bundle(exported)
    files = {f"{number}.jpg": jpeg(90, 50 + number, seed=number) for number in range(7)}
    files["white.png"] = _grey(255)
    expected = bundle.predict(list(files.values()), top=3)
    assert len({prediction.classes[0] for prediction in expected}) > 1
    with start(exported) as server:
        answer = server.upload(files, "?top=3")
        assert answer.status == 200
        alone = [server.predict(data, "?top=3").json["predictions"][0] for data in files.values()]
    for name, together, found, wanted in zip(
        files, answer.json["predictions"], alone, expected, strict=True
    ):
        assert together["name"] == name
        for each in (together, found):
            assert each["classes"] == wanted.classes
            assert each["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)


@pytest.mark.slow
def test_a_model_that_fails_is_500_and_health_says_so(start: Any, moody: Path) -> None:
    with start(moody, "--max-batch", 1) as server:
        assert server.predict(_grey(90)).status == 200
        answer = server.predict(_grey(255))
        assert (answer.status, answer.json["error"]) == (500, "internal")
        # What failed is for the log: a client learns nothing of the inside.
        assert "Gather" not in answer.body.decode()
        health = server.get("/health")
        assert (health.status, health.json["status"]) == (503, "failing")
        # One image that fails keeps neither the others nor the next ones.
        both = server.upload({"white.png": _grey(255), "grey.png": _grey(90)})
        assert (both.status, both.json["refused"]) == (200, 1)
        white, grey = both.json["predictions"]
        assert (white["error"], len(grey["classes"])) == ("internal", 5)
        assert server.predict(_grey(90)).status == 200
        assert server.get("/health").json == {"status": "ok"}
        metrics = server.metrics()
        assert metrics["gsfl_tune_images_total{outcome=failed}"] == 2
        assert metrics["gsfl_tune_requests_total{path=/predict,status=500}"] == 1
        assert metrics["gsfl_tune_images_in_hand"] == 0
        code, _, log = server.stop()
    assert code == 0
    assert "an image could not be predicted" in log
    assert "Gather" in log


@pytest.fixture
def impatient(served_bundle: Path) -> Iterator[Server]:
    """As a program starts one that gives a body a second."""
    program = (
        "import sys; from gsfl_tune.serve import Limits, serve; "
        "serve(sys.argv[1], port=0, limits=Limits(body_seconds=1.0))"
    )
    process = warm.start([served_bundle], code=program)
    try:
        yield Server(process, int(process.stdout.readline().rsplit(":", 1)[1]))
    finally:
        process.kill()
        process.communicate()


def _half(port: int, body: bytes, sent: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), 60)
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body[:sent])
    return client


@pytest.mark.slow
def test_a_client_that_is_too_slow_is_408_and_holds_nothing(impatient: Server) -> None:
    body = jpeg()
    with _half(impatient.port, body, 100) as client:
        answer = client.makefile("rb").read()
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == b"408"
    told = json.loads(content)
    assert told["error"] == "too_slow"
    assert "within 1 seconds" in told["reason"]
    # Whoever sends at once is answered, also after it.
    assert impatient.predict(body).status == 200
    assert impatient.metrics()["gsfl_tune_images_in_hand"] == 0
    assert impatient.metrics()["gsfl_tune_requests_total{path=/predict,status=408}"] == 1


@pytest.mark.slow
def test_more_bytes_than_are_held_at_a_time_are_503(start: Any, served_bundle: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 120, 3), dtype=np.uint8)
    body = encoded(Image.fromarray(noise), "PNG")
    assert 40_000 < len(body) < 50_000
    with start(served_bundle, "--max-bytes", 50_000) as server, ExitStack() as stack:
        # All bodies together may have eight times as much as one.
        clients = [
            stack.enter_context(_half(server.port, body, len(body) - 1000)) for _ in range(9)
        ]
        wait_until(
            lambda: server.metrics()["gsfl_tune_images_in_hand"] >= 9,
            "nine requests are in hand",
            process=server.process,
        )
        # Whose head was read may have bytes under way: some rounds more of the server's loop.
        for _ in range(5):
            server.metrics()
        refused = server.predict(body)
        assert (refused.status, refused.json["error"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        for client in clients:
            client.sendall(body[-1000:])
            assert client.makefile("rb").readline().split()[1] == b"200"
        assert server.predict(body).status == 200
