"""The whole way with a run kept on S3, from the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.s3 import S3Server, s3_server
from tests.test_pipeline import EXPERIMENT

OPTIONS = ("--set", "search.control=matched", "--set", "search.sampler.name=random")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def search(server: S3Server, tmp_path: Path) -> Any:
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT)
    environment = {**os.environ, **server.environment, "GSFL_TUNE_CACHE": str(tmp_path / "cache")}

    def run(*arguments: object, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gsfl_tune", "search", "tiny.yaml", *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    return run


def _results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    for volatile in ("cost", "environment"):
        found.pop(volatile)
    for side in ("winner", "control"):
        found[side]["config"].pop("storage")
    return found


@pytest.mark.slow
def test_a_search_on_s3_says_what_one_in_a_directory_says(search: Any, tmp_path: Path) -> None:
    search("--run-dir", "path", *OPTIONS, "--set", "search.max_concurrent=1")
    stored = ("--storage", "s3://bucket/runs", *OPTIONS, "--set", "search.max_concurrent=1")
    output = search("--run-dir", "one", *stored)
    assert "storage: s3://bucket/runs/tiny" in output
    assert _results(tmp_path / "one") == _results(tmp_path / "path")
    assert "--resume continues it" in search("--run-dir", "two", *stored, code=2)
    # From the storage alone, on a machine that has nothing.
    shutil.rmtree(tmp_path / "one")
    search("--run-dir", "two", *stored, "--resume")
    assert _results(tmp_path / "two") == _results(tmp_path / "path")
    for name in ("model.safetensors", "config.json", "metrics.json"):
        assert (tmp_path / "two" / "best" / name).exists()
    # More trials than it was begun with.
    search("--run-dir", "three", *stored, "--resume", "--trials", "6")
    assert sum(_results(tmp_path / "three")["trials"].values()) == 6


def test_a_storage_that_cannot_be_used_is_refused_before_anything_is_trained(
    search: Any, tmp_path: Path
) -> None:
    output = search("--run-dir", "refused", "--storage", "s3://missing/runs", code=2)
    assert "the bucket does not exist" in output
    assert not (tmp_path / "refused" / "run.json").exists()
