"""An S3 server in a process of its own, to be frozen, spoilt and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from pyarrow import fs

BUCKET = "bucket"


class Request(NamedTuple):
    """Who asked (an access key, any is taken) for what."""

    key: str
    method: str
    path: str
    query: str


@dataclass
class S3Server:
    process: subprocess.Popen[str]
    endpoint: str
    mood: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def file_system(self, **options: bool) -> fs.S3FileSystem:
        return fs.S3FileSystem(
            access_key="testing",
            secret_key="testing",
            region="us-east-1",
            endpoint_override=self.endpoint.removeprefix("http://"),
            scheme="http",
            **options,
        )

    def requests(self) -> list[Request]:
        """What was answered so far, the mood permitting."""
        lines = self.mood.with_name(f"{self.mood.name}.log").read_text().splitlines()
        return [Request(*line.split(" ")) for line in lines]

    def last_failed(self) -> float:
        """When the mood failed a request for the last time, as `time.time`; 0 for never."""
        file = self.mood.with_name(f"{self.mood.name}.failed")
        times = file.read_text().split("\n")[:-1] if file.exists() else []
        return max(map(float, times), default=0.0)

    def unread(self) -> int:
        """Counts connections whose requests have arrived and not been read: they hang, if frozen.

        Those that a client gave up count too.
        """
        port = f":{int(self.endpoint.rpartition(':')[2]):04X}"
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        # Column 1 is the local address; column 4 is "bytes to send:bytes to read".
        return sum(row[1].endswith(port) and int(row[4].split(":")[1], 16) > 0 for row in rows)

    @contextmanager
    def feeling(self, mood: str) -> Iterator[None]:
        self.mood.write_text(mood)
        try:
            yield
        finally:
            self.mood.write_text("")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)


@contextmanager
def s3_server(folder: Path, monkeypatch: pytest.MonkeyPatch | None = None) -> Iterator[S3Server]:
    """Starts a server with a bucket; with `monkeypatch`, clients in this process find it."""
    mood = folder / "mood"
    mood.write_text("")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.s3_server", str(mood)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        server = S3Server(process, f"http://127.0.0.1:{int(process.stdout.readline())}", mood)
        server.file_system(allow_bucket_creation=True).create_dir(BUCKET)
        if monkeypatch is not None:
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
        yield server
    finally:
        process.kill()
        process.wait()
