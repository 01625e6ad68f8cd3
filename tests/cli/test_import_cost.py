"""What a command imports is what its user waits for: packages are counted, seconds are not.

A second check of the same experiment says the same, without PyTorch and timm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

# One process for several checks: most of the time goes into importing torch.
CODE = """
import contextlib, io, json, sys
import gsfl_tune
first, printed = sorted(sys.modules), []
from gsfl_tune.cli import main
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["check", *arguments]) == 0
    printed.append(out.getvalue())
print(json.dumps([printed, first, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
OPTIONS = [(), ("--json",), ("--set", "search.time_budget=5m")]

TEXT = """\
name: tiny
data: {source: typefaces, image_size: 32}
model: {backbone: test_efficientnet, weights: none, dropout: {choice: [0.1, 0.2]}}
search: {trials: 4}
"""


@dataclass(frozen=True)
class Checks:
    """What a new process imported, and what its checks printed.

    Attributes:
        printed: By every check.
        first: Modules after `import gsfl_tune`.
        packages: After all checks.
    """

    printed: list[str]
    first: list[str]
    packages: set[str]


def checks(folder: Path) -> Checks:
    """Checks the experiment of a folder, which has a cache of its own, in all ways."""
    arguments = [(str(folder / "tiny.yaml"), *options) for options in OPTIONS]
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "GSFL_TUNE_CACHE": str(folder / "cache")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    printed, first, packages = json.loads(done.stdout)
    return Checks(printed, first, set(packages))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("imports")
    (folder / "tiny.yaml").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def loaded(folder) -> Checks:
    return checks(folder)


def test_importing_the_package_imports_no_other(loaded):
    first = loaded.first
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
    assert name not in loaded.packages


def test_a_second_check_needs_neither_torch_nor_timm(loaded, folder):
    assert {"torch", "timm"} <= loaded.packages
    kept = sorted(folder.glob("cache/checks/*.json"))
    assert len(kept) == len(OPTIONS)
    second = checks(folder)
    assert not second.packages & {"torch", "timm", "torchvision", "optuna", "ray"}
    assert second.printed == loaded.printed
    assert sorted(folder.glob("cache/checks/*.json")) == kept
