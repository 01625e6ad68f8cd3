"""A reader sees the old file or the new one."""

import os
import signal
import subprocess
import sys

import pytest

from gsfl_tune.run import read_json, write_bytes, write_json
from gsfl_tune.run.atomic import whole_file
from tests.waiting import wait_until


def test_json_round_trip_with_non_ascii(tmp_path):
    path = tmp_path / "new" / "deeper" / "a.json"
    write_json(path, {"class": "Grünspecht", "value": 0.1})
    assert read_json(path) == {"class": "Grünspecht", "value": 0.1}


def test_nan_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"value": 1})
    with pytest.raises(ValueError):
        write_json(path, {"value": float("nan")})
    assert read_json(path) == {"value": 1}


def test_a_failed_write_leaves_no_temporary_file(tmp_path):
    target = tmp_path / "directory"
    target.mkdir()
    with pytest.raises(OSError):
        write_bytes(target, b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["directory"]


def test_a_killed_writer_leaves_whole_files(tmp_path):
    path = tmp_path / "data"
    code = (
        "import sys, itertools\n"
        "from pathlib import Path\n"
        "from gsfl_tune.run import write_bytes\n"
        "for n in itertools.count():\n"
        "    write_bytes(Path(sys.argv[1]), bytes([n % 256]) * 200_000)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
    wait_until(path.exists, "the file is written", process=writer)
    for _ in range(50):
        data = path.read_bytes()
        assert len(data) == 200_000
        assert len(set(data)) == 1
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert len(path.read_bytes()) == 200_000


def test_a_file_that_is_written_in_pieces_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "data"
    with whole_file(path) as temporary:
        for piece in (b"a", b"b"):
            with temporary.open("ab") as file:
                file.write(piece)
        assert not path.exists()
    assert path.read_bytes() == b"ab"
    assert list(path.parent.iterdir()) == [path]


def test_a_block_that_fails_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"old")

    def fails():
        with whole_file(path) as temporary:
            temporary.write_bytes(b"half of the new")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_colleagues_may_read_what_is_written(tmp_path):
    path = tmp_path / "data"
    write_bytes(path, b"x")
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
