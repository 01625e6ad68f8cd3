"""What a command imports is what its user waits for: packages are counted, seconds are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from gsfl_tune.cli._kept_answer import _bare_cpu

CODE = """
import json, sys
import gsfl_tune
first = sorted(sys.modules)
from gsfl_tune.cli import main
assert main(["check", *sys.argv[1:]]) == 0
print(json.dumps([first, sorted(sys.modules)]))
"""

TEXT = """\
name: tiny
data: {source: typefaces, image_size: 32}
model: {backbone: test_efficientnet, weights: none, dropout: {choice: [0.1, 0.2]}}
search: {trials: 4}
"""

no_gpu = pytest.mark.skipif(not _bare_cpu(), reason="answers are kept on machines without a GPU")


def started(file: Path, cache: Path, *arguments: str) -> tuple[str, list[str], set[str]]:
    """What a check says, modules after `import gsfl_tune`, and packages after the check."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(file), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "GSFL_TUNE_CACHE": str(cache)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *said, modules = done.stdout.splitlines()
    first, last = json.loads(modules)
    return "\n".join(said), first, {name.partition(".")[0] for name in last}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("imports")
    file = folder / "tiny.yaml"
    file.write_text(TEXT)
    return file, folder / "cache"


@pytest.fixture(scope="module")
def loaded(place) -> tuple[str, list[str], set[str]]:
    return started(*place)


def test_importing_the_package_imports_no_other(loaded):
    _, first, _ = loaded
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
    assert name not in loaded[2]


@no_gpu
def test_the_same_check_again_says_the_same_without_pytorch(place, loaded):
    said, _, packages = started(*place)
    assert said == loaded[0]
    assert "What the search costs at most:" in said
    assert not packages & {"torch", "torchvision", "timm", "pyarrow", "psutil"}


@no_gpu
def test_another_value_is_checked_anew(place, loaded):
    said, _, packages = started(*place, "--set", "search.trials=5")
    assert said != loaded[0]
    assert "torch" in packages


@no_gpu
@pytest.mark.usefixtures("loaded")
def test_what_depends_on_files_is_not_kept(place, tmp_path):
    pictures = tmp_path / "pictures"
    for number in range(12):
        folder = pictures / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(folder / f"{number}.png")
    kept = {entry.name for entry in (place[1] / "checks").iterdir()}
    said, _, _ = started(*place, "--set", "data.source=folder", "--set", f"data.path={pictures}")
    assert "12 images" in said
    assert {entry.name for entry in (place[1] / "checks").iterdir()} == kept
