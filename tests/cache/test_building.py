from __future__ import annotations

import os
import select
import signal
import subprocess
import textwrap
from pathlib import Path

import pytest

from gsfl_tune.cache import build_once, cache_directory

from .processes import python

# Builds until it is sent a line and counts itself in a file; says when it has begun.
BUILDER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from gsfl_tune.cache import locks
    from gsfl_tune.cache.building import build_once

    locks.NOTICE_SECONDS = 0.2
    target = Path(sys.argv[1])

    def build(path):
        with (target.parent / "builders").open("a") as file:
            file.write("x")
        path.write_text("first half, ")
        print("begun", flush=True)
        sys.stdin.readline()
        with path.open("a") as file:
            file.write("second half")

    print(build_once(target, build).read_text(), flush=True)
    """
)


def start(target: Path) -> subprocess.Popen[str]:
    return python(BUILDER, target)


def test_two_processes_that_start_together_build_once(tmp_path):
    target = tmp_path / "cache" / "thing"
    target.parent.mkdir()
    processes = [start(target), start(target)]
    waiting, _, _ = select.select([process.stderr for process in processes], [], [], 60)
    assert [file.readline()[:27] for file in waiting] == ["waiting for another process"]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert (target.parent / "builders").read_text() == "x"
    assert all(output.endswith("first half, second half\n") for output in outputs)


def test_a_waiting_process_builds_when_the_builder_is_killed(tmp_path):
    target = tmp_path / "thing"
    builder = start(target)
    assert builder.stdout is not None
    assert builder.stdout.readline() == "begun\n"
    waiter = start(target)
    assert waiter.stderr is not None
    assert waiter.stderr.readline().startswith("waiting for another process")
    builder.kill()
    builder.wait(timeout=60)
    output, _ = waiter.communicate(timeout=60)
    assert output == "begun\nfirst half, second half\n"
    assert {path.name for path in tmp_path.iterdir()} == {"thing", "thing.lock", "builders"}


def test_a_killed_builder_leaves_nothing_that_is_read(tmp_path):
    target = tmp_path / "thing"
    process = start(target)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert not target.exists()
    assert list(tmp_path.glob("*.tmp"))
    built = build_once(target, lambda path: path.write_text("whole") and None)
    assert built.read_text() == "whole"
    assert not list(tmp_path.glob("*.tmp"))


def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path):
    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        build_once(tmp_path / "thing", fail)
    assert [file.name for file in tmp_path.iterdir()] == ["thing.lock"]
    assert build_once(tmp_path / "thing", lambda p: p.touch()).exists()


def test_what_exists_is_not_built_again(tmp_path):
    target = tmp_path / "thing"
    target.write_text("old")
    assert build_once(target, lambda path: path.unlink()).read_text() == "old"


def test_directories_can_be_built_too(tmp_path):
    def build(path: Path) -> None:
        (path / "inner").mkdir(parents=True)
        (path / "inner" / "file").write_text("x")

    assert (build_once(tmp_path / "a[b]*", build) / "inner" / "file").read_text() == "x"


def test_the_cache_directory_can_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("GSFL_TUNE_CACHE", "~/elsewhere")
    assert cache_directory() == Path.home() / "elsewhere"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GSFL_TUNE_CACHE", "here")
    assert cache_directory() == tmp_path / "here"
    monkeypatch.delenv("GSFL_TUNE_CACHE")
    assert cache_directory() == Path.home() / ".cache" / "gsfl-tune"


def test_waiting_is_for_the_holder_alone(tmp_path):
    """A lock on one file does not hold up another."""
    process = start(tmp_path / "slow")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        assert build_once(tmp_path / "quick", lambda path: path.touch()).exists()
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(timeout=60)
