"""The server as its clients see it."""

from __future__ import annotations

import io
import os
import signal
import socket
import struct
import time
import zlib

import pytest
from PIL import Image

from gsfl_tune.export import Options, export_run, load_bundle
from tests.export.conftest import CLASSES
from tests.serve.conftest import Server, encoded, jpeg, together
from tests.waiting import listens, wait_until


def test_an_image_as_the_body_is_predicted_as_on_the_command_line(server, served_bundle, images):
    bundle = load_bundle(served_bundle)
    for path in images:
        answer = server.predict(path.read_bytes(), "?top=3")
        assert answer.status == 200
        (found,) = answer.json["predictions"]
        (expected,) = bundle.predict([path], top=3)
        assert found["classes"] == expected.classes
        assert found["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)


def test_several_images_are_answered_in_their_order(server, served_bundle):
    files = {f"{number}.jpg": jpeg(seed=number) for number in range(6)}
    answer = server.upload(files)
    assert answer.status == 200
    assert answer.json["refused"] == 0
    expected = load_bundle(served_bundle).predict(files.values(), top=5)
    for name, found, wanted in zip(files, answer.json["predictions"], expected, strict=True):
        assert found["name"] == name
        assert found["classes"] == wanted.classes


def test_a_bad_image_does_not_keep_the_others(server):
    answer = server.upload({"good.jpg": jpeg(), "bad.jpg": b"no image"})
    assert answer.status == 200
    good, bad = answer.json["predictions"]
    assert good["classes"]
    assert (bad["name"], bad["error"]) == ("bad.jpg", "not_an_image")
    assert answer.json["refused"] == 1
    answer = server.upload({"a": b"no image", "b": b"neither"})
    assert (answer.status, answer.json["error"]) == (415, "not_an_image")


def test_what_is_asked_for_decides_how_many_classes_come(server):
    assert len(server.predict(jpeg()).json["predictions"][0]["classes"]) == 5
    (found,) = server.predict(jpeg(), "?top=100").json["predictions"]
    assert sorted(found["classes"]) == sorted(CLASSES)
    assert sum(found["probabilities"]) == pytest.approx(1)
    for top in ("0", "-1", "many", "99999"):
        answer = server.predict(jpeg(), f"?top={top}")
        assert (answer.status, answer.json["error"]) == (400, "bad_parameter")


def test_below_a_threshold_the_answer_is_unknown(server):
    (plain,) = server.predict(jpeg()).json["predictions"]
    assert "unknown" not in plain
    for threshold in (0.0, plain["probabilities"][0] + 1e-6, 1.0):
        (found,) = server.predict(jpeg(), f"?threshold={threshold}").json["predictions"]
        assert found["unknown"] == (threshold > 0)
        assert found["probabilities"] == pytest.approx(plain["probabilities"])
    # This bundle has no threshold of its own.
    for threshold in ("auto", "2", "often"):
        answer = server.predict(jpeg(), f"?threshold={threshold}")
        assert (answer.status, answer.json["error"]) == (400, "bad_parameter")
        assert "allowed" in answer.json["reason"]


def bomb(width: int, height: int) -> bytes:
    """A small PNG file that says it is large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("body", "status", "error", "words"),
    [
        (b"", 400, "no_image", "no image"),
        (b"<html></html>", 415, "not_an_image", "JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "not_an_image", "JPEG"),
        (jpeg()[:700], 422, "damaged_image", "cannot be read"),
        (bomb(30_000, 30_000), 413, "too_many_pixels", "pixels"),
        (bomb(1_000, 201), 413, "too_many_pixels", "1000 x 201 pixels are more than 200000"),
        (b"x" * 300_001, 413, "body_too_large", "300000 bytes"),
    ],
    ids=["nothing", "html", "eps", "truncated", "bomb", "large", "bytes"],
)
def test_a_bad_body_is_refused_with_a_reason(server, body, status, error, words):
    answer = server.predict(body)
    assert (answer.status, answer.json["error"]) == (status, error)
    assert words in answer.json["reason"]
    assert answer.headers["content-type"].startswith("application/json")


def test_a_body_without_a_length_is_bounded_too(server):
    with socket.create_connection(("127.0.0.1", server.port), 60) as client:
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head)
        for _ in range(40):
            client.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        client.sendall(b"0\r\n\r\n")
        assert client.makefile("rb").readline().split()[1] == b"413"


def test_formats_are_read_as_training_read_them(server, served_bundle):
    picture = Image.open(io.BytesIO(jpeg(80, 60)))
    bundle = load_bundle(served_bundle)
    for kind in ("PNG", "WEBP", "GIF", "BMP", "TIFF"):
        data = encoded(picture, kind)
        (found,) = server.predict(data).json["predictions"]
        assert found["classes"] == bundle.predict([data])[0].classes


def test_malformed_uploads_are_refused(server):
    kind = "multipart/form-data; boundary=x"
    for body, content_type, error in [
        (b"--x\r\n\r\nnothing", kind, "malformed_body"),
        (b"anything", "multipart/form-data", "malformed_body"),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\ntext\r\n--x--\r\n',
            kind,
            "no_image",
        ),
    ]:
        answer = server.send("POST", "/predict", body, Content_Type=content_type)
        assert (answer.status, answer.json["error"]) == (400, error)
    answer = server.upload({f"{number}": jpeg() for number in range(11)})
    assert (answer.status, answer.json["error"]) == (413, "too_many_images")


def test_other_routes_answer_in_json(server):
    assert server.get("/health").json == {"status": "ok"}
    what = server.get("/").json
    assert (what["name"], what["classes"]) == ("zoo", CLASSES)
    assert what["limits"]["max_bytes"] == 300_000
    assert what["test"]["accuracy"]["mean"] == 0.5
    assert server.get("/nothing").json["error"] == "not_found"
    answer = server.get("/predict")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_requests_side_by_side_are_batched_and_counted(server):
    before = server.metrics()
    answers = together(24, lambda number: server.predict(jpeg(seed=number)))
    assert [answer.status for answer in answers] == [200] * 24
    after = server.metrics()

    def grown(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    assert grown("gsfl_tune_images_total{outcome=predicted}") == 24
    assert grown("gsfl_tune_requests_total{path=/predict,status=200}") == 24
    assert grown("gsfl_tune_batch_images_sum") == 24
    assert grown("gsfl_tune_batch_images_count") < 24
    assert after["gsfl_tune_images_in_hand"] == 0
    assert after["process_resident_memory_bytes"] > 1e7


def test_what_is_too_much_is_refused_and_can_be_sent_again(start, served_bundle):
    with start(served_bundle, "--queue", 3, "--max-wait", 300, "--max-batch", 4) as server:
        answers = together(12, lambda number: server.predict(jpeg(seed=number)))
        refused = [answer for answer in answers if answer.status == 503]
        assert len(refused) + sum(answer.status == 200 for answer in answers) == 12
        assert refused
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        assert refused[0].json["error"] == "overloaded"
        assert server.predict(jpeg()).status == 200
        assert server.metrics()["gsfl_tune_images_in_hand"] == 0


def _wait_for_request(server: Server) -> None:
    wait_until(
        lambda: server.metrics()["gsfl_tune_images_in_hand"] >= 1,
        "a request is in hand",
        process=server.process,
    )


def test_sigterm_lets_requests_under_way_be_answered(start, served_bundle):
    body = jpeg()
    with start(served_bundle) as server:
        with socket.create_connection(("127.0.0.1", server.port), 60) as client:
            head = f"POST /predict HTTP/1.1\r\nHost: [::1]\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body[:100])
            _wait_for_request(server)
            server.process.terminate()
            wait_until(lambda: not listens(server.port), "the server takes no more requests")
            client.sendall(body[100:])
            answer = client.makefile("rb").read()
        out, err = server.process.communicate(timeout=60)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"probabilities" in answer
    assert server.process.returncode == 0
    assert "stopped after" in out
    assert err == ""


@pytest.mark.parametrize(
    "word", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_second_signal_does_not_wait_for_requests(start, served_bundle, word):
    with (
        start(served_bundle) as server,
        socket.create_connection(("127.0.0.1", server.port), 60) as client,
    ):
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nx")
        _wait_for_request(server)
        server.process.send_signal(word)
        wait_until(lambda: not listens(server.port), "the server takes no more requests")
        started = time.monotonic()
        server.process.send_signal(word)
        server.process.communicate(timeout=60)
        # The request would have had 30 s.
        assert time.monotonic() - started < 15
    assert server.process.returncode == 0


@pytest.mark.slow
def test_an_idle_server_stops_at_once(start, served_bundle):
    with start(served_bundle) as server:
        code, out, err = server.stop()
    assert (code, err) == (0, "")
    assert "stopped after 0 answers" in out


@pytest.mark.slow
def test_onnx_takes_no_more_threads_than_it_is_given(start, trained_run, cache_dir, tmp_path):
    pytest.importorskip("onnxruntime")
    options = Options(format="onnx", threads=1, seconds=0.0)
    path = export_run(trained_run.path, tmp_path / "out", options=options, cache_dir=cache_dir)
    with start(path, "--threads", 1, cores=40) as server:
        assert server.predict(jpeg()).status == 200
        # 40 are torch's, which were there before; ONNX Runtime's would be 39 more.
        assert len(os.listdir(f"/proc/{server.process.pid}/task")) < 60
