"""An S3 server on loopback that can be killed and comes back with its objects."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.faults.nodes import ROOT, kill

BUCKET = "faults"


class StorageServer:
    """What drivers and trials see of it is a process that passes everything on, see `relay`.

    Args:
        folder: For what the server prints.
    """

    def __init__(self, folder: Path) -> None:
        self._moto, port = _started(
            [sys.executable, "-m", "benchmarks.faults.moto_s3"], folder / "moto.txt"
        )
        self._way = [sys.executable, "-m", "benchmarks.faults.relay"]
        self._folder, self._target = folder, port
        self._relay, self._port = self._passes_on(0)
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self._create_bucket()

    def url(self, name: str) -> str:
        """A storage of its own."""
        return f"s3://{BUCKET}/{name}"

    def kill(self) -> None:
        """``kill -9``: every connection breaks, no other is taken."""
        kill(self._relay.pid)
        self._relay.wait()

    def revive(self) -> None:
        """Is there again, at the same address."""
        self._relay, _ = self._passes_on(self._port)

    def close(self) -> None:
        """Ends both processes."""
        for process in (self._relay, self._moto):
            process.kill()
            process.wait()

    def _passes_on(self, port: int) -> tuple[subprocess.Popen[str], int]:
        return _started([*self._way, str(port), str(self._target)], self._folder / "relay.txt")

    def _create_bucket(self) -> None:
        from pyarrow import fs

        system = fs.S3FileSystem(
            access_key="testing",
            secret_key="testing",
            region="us-east-1",
            endpoint_override=f"127.0.0.1:{self._target}",
            scheme="http",
            allow_bucket_creation=True,
        )
        for _ in range(20):
            with suppress(OSError):
                system.create_dir(BUCKET)
                return
            time.sleep(0.5)
        raise RuntimeError("the S3 server does not answer")


@contextmanager
def storage_server(folder: Path) -> Iterator[StorageServer]:
    """A server that ends with the block."""
    server = StorageServer(folder)
    try:
        yield server
    finally:
        server.close()


def _started(command: list[str], output: Path) -> tuple[subprocess.Popen[str], int]:
    with output.open("a") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{command[2]} ended with {process.wait()}: {output.read_text()}")
    return process, int(line)
