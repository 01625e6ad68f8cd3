"""What is said of answers that no machine of the tests can give."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.cluster import Inspection, node_table
from gsfl_tune.cluster.doctor import probe
from gsfl_tune.cluster.doctor.findings import Node, compare
from gsfl_tune.run.gpus import read_gpus

GIB = 1024**3


@pytest.fixture
def answer(tmp_path: Path) -> dict[str, Any]:
    """A real one, of this machine."""
    folder = tmp_path / "meeting"
    folder.mkdir()
    (folder / "driver").write_text("token")
    return probe.look(
        {
            "node": "a",
            "cache": str(tmp_path / "cache"),
            "run": {"path": str(folder), "token": "token"},
            "data": [str(folder)],
        }
    )


def _said(answer: dict[str, Any], driver: dict[str, Any], **node: Any) -> list[str]:
    asked = Node("10.0.0.7", "a", cpus=8, answer=answer, **({"gpus": 0} | node))
    return [str(finding) for finding in compare([asked], driver)]


def test_a_node_like_the_driver_needs_nothing(answer: dict[str, Any]) -> None:
    # Nobody holds the lock here: the one thing to be said.
    assert [text.partition(";")[0] for text in _said(answer, answer)] == [
        f"warning: 10.0.0.7: locks of other nodes do not hold in {answer['run']['path'][:-8]}"
    ]
    answer["run"]["locks"] = True
    assert _said(answer, answer, skew=-0.4, skew_bound=0.1) == []


@pytest.mark.parametrize(
    ("change", "node", "expected"),
    [
        ({"python": "3.12.1"}, {}, r"10.0.0.7: Python 3.12.1, the driver has 3.11"),
        (
            {"scratch": {"path": "/scratch", "free": 3 * GIB, "error": None}},
            {},
            "warning: 10.0.0.7: 3.* left for trials in /scratch",
        ),
        (
            {"scratch": {"path": "/scratch", "free": None, "error": "read-only"}},
            {},
            "10.0.0.7: trials have no place on this node: /scratch: read-only; set TMPDIR",
        ),
        ({"code": None}, {}, "10.0.0.7: gsfl-tune cannot be imported there"),
        ({"open_files": [2000, 9000]}, {}, "warning: .* 2000 open files .* hard limit is 9000"),
        ({"open_files": [256, 256]}, {}, "10.0.0.7: 256 open files a process are allowed;"),
        ({"gpus": [{"name": "X", "memory": 80 * GIB}]}, {"gpus": 2}, "with 2 GPUs, .* has 1"),
        ({"gpus": [{"name": "X", "memory": 80 * GIB}]}, {}, "warning: .* knows of no GPU"),
        (
            {"gpus": [{"name": "X", "memory": None}], "torch_cuda": None},
            {"gpus": 1},
            "10.0.0.7: torch is a build for CPUs",
        ),
        ({}, {"skew": 7.0, "skew_bound": 1.0}, "warning: .* clock is 6 s ahead of the driver's"),
        ({}, {"skew": -90.0, "skew_bound": 1.0}, "10.0.0.7: its clock is 89 s behind"),
    ],
)
def test_differences_have_a_line_with_their_fix(
    answer: dict[str, Any], change: dict[str, Any], node: dict[str, Any], expected: str
) -> None:
    answer["run"]["locks"] = True
    [said] = _said(answer | change, answer, **node)
    assert re.search(expected, said), said
    assert "; " in said


def test_versions_are_compared_by_release(answer: dict[str, Any]) -> None:
    answer["run"]["locks"] = True
    driver = answer | {"packages": answer["packages"] | {"torch": "2.15.0+cu132"}}

    def said(version: str | None) -> list[str]:
        return _said(answer | {"packages": answer["packages"] | {"torch": version}}, driver)

    assert said("2.15.0+cu132") == []
    assert said("2.15.0+cpu")[0].startswith("warning: 10.0.0.7: torch 2.15.0+cpu, the driver has")
    assert said("2.14.1+cu132")[0].startswith("10.0.0.7: torch 2.14.1+cu132, the driver has 2.15")
    assert said(None)[0].startswith("10.0.0.7: torch is not installed, the driver has 2.15.0")


def test_packages_that_add_something_must_be_on_every_node(answer: dict[str, Any]) -> None:
    answer["run"]["locks"] = True
    driver = answer | {"packages": answer["packages"] | {"my-plugins": "0.1.0"}}
    [said] = _said(answer, driver)
    assert said.startswith("10.0.0.7: my-plugins is not installed, the driver has 0.1.0; install")
    # What a node has besides is nobody's concern.
    assert _said(driver, answer) == []


def test_a_clock_within_the_round_trip_is_no_difference(answer: dict[str, Any]) -> None:
    answer["run"]["locks"] = True
    assert _said(answer, answer, skew=30.0, skew_bound=40.0) == []


def test_the_table_fits_a_terminal(answer: dict[str, Any]) -> None:
    answer["gpus"] = [{"name": "NVIDIA H100", "memory": 80 * GIB}] * 8
    answer["data"][0]["files"] = 1_281_167
    nodes = [
        Node("ip-172-31-29-221.eu-central-1.compute.internal", "a", 192, 8, answer, skew=-61.25),
        Node("10.0.0.12/abc123", "b", 192, 8, error="did not answer in 60 s"),
    ]
    lines = node_table(Inspection(nodes)).splitlines()
    assert len(lines) == 3
    assert {len(line) for line in lines} == {80}
    assert lines[1].split()[2:6] == ["1281167", "same", "192", "8x80G"]
    assert lines[2].split()[1:] == ["?", "?", "?", "192", "8", "?", "?", "?"]


def test_listings_differ_where_files_do(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"{number}.png").write_bytes(bytes(number))
    (tmp_path / "a" / ".hidden").touch()
    # A link to a folder above does not go round for ever.
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    first = probe.list_files(str(tmp_path))
    assert (first["files"], first["error"]) == (5, None)
    (tmp_path / "a" / "3.png").write_bytes(b"a pointer to the real file")
    assert probe.list_files(str(tmp_path))["digest"] != first["digest"]
    assert probe.list_files(str(tmp_path / "*" / "*.png"))["files"] == 5
    assert probe.list_files(str(tmp_path / "b"))["error"].startswith("No such file or directory")
    url = probe.list_files(f"file://{tmp_path / 'none'}")
    assert "does not exist" in url["error"]


def test_a_folder_that_is_not_the_drivers_is_told_from_one_that_cannot_be_used(
    tmp_path: Path,
) -> None:
    missing = probe.try_folder({"path": str(tmp_path / "x" / "y"), "token": "t"}, "n")
    assert (missing["shared"], missing["error"]) == (False, None)
    (tmp_path / "driver").write_text("of another driver")
    other = probe.try_folder({"path": str(tmp_path), "token": "t"}, "n")
    assert not other["shared"]
    assert os.listdir(tmp_path) == ["driver"]


def test_gpus_as_the_drivers_tool_tells_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_gpus() is None
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-5f, NVIDIA GB10, [N/A], [N/A], 7'\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    assert probe.gpus() == [{"name": "NVIDIA GB10", "memory": None}]
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    assert read_gpus() is None
