"""The questions of the preflight reach nodes that lack this package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ray import cloudpickle

from gsfl_tune.cluster import Inspection, node_table
from gsfl_tune.cluster.doctor import probe
from gsfl_tune.cluster.doctor.findings import Node, compare
from gsfl_tune.cluster.doctor.inspection import _by_value

# A node on which nothing of ours can be imported.
NODE = """
import json, sys
sys.modules["gsfl_tune"] = None
from ray import cloudpickle
look = cloudpickle.loads(sys.stdin.buffer.read())
print(json.dumps(look({"node": "a", "packages": ["a-plugin", "ray"]})))
"""


def test_a_node_without_the_package_says_so_itself() -> None:
    with _by_value():
        code = cloudpickle.dumps(probe.look)
    done = subprocess.run(
        [sys.executable, "-c", NODE], input=code, capture_output=True, check=True, cwd="/"
    )
    answer = json.loads(done.stdout)
    assert answer["packages"]["ray"]
    assert answer["packages"]["a-plugin"] is None
    assert "code" in answer


def test_a_node_with_an_older_package_sees_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").touch()
    question = {
        "node": "a",
        "quick": True,
        "storage": {"path": str(tmp_path), "token": "token"},
        "data": [str(tmp_path), f"{tmp_path}/{{a,b}}"],
    }
    driver = probe.look(question)
    for module in ("gsfl_tune.experiment.braces", "gsfl_tune.run.storage"):
        monkeypatch.setitem(sys.modules, module, None)
    answer = probe.look(question)
    # What needs the package is not known, which is no fault of folders or credentials.
    assert (answer["data"][0]["files"], answer["data"][0]["error"]) == (1, None)
    assert answer["data"][1]["unknown"]
    assert answer["storage"]["unknown"]
    node = Node("10.0.0.7", "a", cpus=8, gpus=0, answer=answer)
    said = [str(finding) for finding in compare([node], driver)]
    assert [text for text in said if "storage" in text or str(tmp_path) in text] == []
    row = node_table(Inspection([node])).splitlines()[1].split()
    assert row[1:3] == ["?", "?"]
