"""What a command imports is what its user waits for: packages are counted, seconds are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

CODE = """
import json, sys
import gsfl_tune
first = sorted(sys.modules)
from gsfl_tune.cli import main
assert main(["check", sys.argv[1]]) == 0
print(json.dumps([first, sorted(sys.modules)]))
"""

TEXT = """\
name: tiny
data: {source: typefaces, image_size: 32}
model: {backbone: test_efficientnet, weights: none, dropout: {choice: [0.1, 0.2]}}
search: {trials: 4}
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> tuple[list[str], set[str]]:
    """Modules after `import gsfl_tune`, and packages after `gsfl-tune check`."""
    # A cache of its own: a second check imports less.
    folder = tmp_path_factory.mktemp("imports")
    file = folder / "tiny.yaml"
    file.write_text(TEXT)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(file)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "GSFL_TUNE_CACHE": str(folder / "cache")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, last = json.loads(done.stdout.splitlines()[-1])
    return first, {name.partition(".")[0] for name in last}


def test_importing_the_package_imports_no_other(loaded):
    first, _ = loaded
    names = {name.partition(".")[0] for name in first}
    ours = [name for name in first if name.startswith("gsfl_tune")]
    assert ours == ["gsfl_tune"]
    assert not names & {"torch", "numpy", "pydantic", "ray", "optuna", "yaml", "rich"}
    assert len(first) < 150


@pytest.mark.parametrize(
    "name",
    ["ray", "optuna", "matplotlib", "sklearn", "scipy", "pandas", "openvino", "jinja2", "onnx"],
)
def test_a_check_does_without(loaded, name):
    assert name not in loaded[1]
