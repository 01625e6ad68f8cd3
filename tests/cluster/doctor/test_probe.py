"""The questions of the preflight reach nodes that lack this package."""

from __future__ import annotations

import json
import subprocess
import sys

from ray import cloudpickle

from gsfl_tune.cluster.doctor import probe
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
