"""Real servers: ``gsfl-tune serve`` as a process, and the client's side of a socket."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.export import bundle_from_network
from tests import warm
from tests.export.conftest import (
    CLASSES,
    GROUPS,
    METRICS,
    SIDE,
    cache_dir,
    config,
    images,
    network,
    trained_run,
)
from tests.serve.looks import whole_bundle

__all__ = ["cache_dir", "config", "images", "network", "trained_run"]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A server process and a client for it."""

    def __init__(self, process: warm.Started, port: int) -> None:
        self.process = process
        self.port = port
        self.host = "127.0.0.1"

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = HTTPConnection(self.host, self.port, timeout=60)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            return answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def predict(self, body: bytes, query: str = "") -> Answer:
        return self.send("POST", f"/predict{query}", body)

    def upload(self, files: dict[str, bytes], query: str = "") -> Answer:
        boundary = "a-boundary-of-tests"
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"'
            "\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
            + data
            + b"\r\n"
            for name, data in files.items()
        ]
        body = b"".join(parts) + f"--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        return self.send("POST", f"/predict{query}", body, Content_Type=kind)

    def metrics(self) -> dict[str, float]:
        """Every sample by name, with its labels as in the text."""
        from prometheus_client.parser import text_string_to_metric_families

        samples = {}
        for family in text_string_to_metric_families(self.get("/metrics").body.decode()):
            for sample in family.samples:
                labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    def stop(self) -> tuple[int, str, str]:
        """SIGTERM; exit code and what it printed."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


def answer(response: HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


@contextmanager
def serving(bundle: Path, *arguments: object, cores: int | None = None) -> Iterator[Server]:
    """Starts one; `cores` are the threads that torch begins with, as if it had found so many."""
    code = None
    if cores is not None:
        run = "import runpy; runpy.run_module('gsfl_tune', run_name='__main__')"
        code = f"import torch; torch.set_num_threads({cores}); {run}"
    words = ["serve", bundle, "--port", 0, *arguments]
    process = warm.start(words, code=code, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        first = process.stdout.readline()
        if not first:
            raise AssertionError(process.communicate(timeout=30))
        yield Server(process, int(first.rsplit(":", 1)[1]))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def served_bundle(tmp_path_factory, config, network) -> Path:
    return bundle_from_network(
        tmp_path_factory.mktemp("served") / "bundle",
        network,
        config,
        classes=CLASSES,
        groups=GROUPS,
        side=SIDE,
        metrics=METRICS,
    )


@pytest.fixture(scope="session")
def server(served_bundle) -> Iterator[Server]:
    """A server that all tests share; those that stop one start their own."""
    limits = ["--max-bytes", "300kB", "--max-pixels", 200_000, "--max-images", 10]
    with serving(served_bundle, *limits) as server:
        yield server


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """A bundle with maps, a threshold and training images."""
    return whole_bundle(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="session")
def looks(whole) -> Iterator[Server]:
    """A server of it, which tests share."""
    with serving(whole, "--max-bytes", "300kB") as server:
        yield server


@pytest.fixture(scope="session")
def start() -> Callable[..., Any]:
    return serving


def jpeg(width: int = 60, height: int = 50, seed: int = 0) -> bytes:
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return encoded(small.resize((width, height), Image.Resampling.BICUBIC), "JPEG")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Calls `work(0)`, `work(1)`, ... in threads of their own, all at once."""
    results: list[Any] = [None] * count
    gate = threading.Barrier(count)

    def run(number: int) -> None:
        gate.wait()
        results[number] = work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results
