"""What training needs: a bare GPU machine has little, and imports are paid for by every process."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

import gsfl_tune

PACKAGE = Path(gsfl_tune.__file__).parent
ROOMS = ("experiment", "run", "cache", "data", "grouping", "losses", "models", "training")
# What a module of these rooms may import, at the top or in a function that a training calls;
# scikit-learn does not install without scipy. OpenVINO is looked for, and may be missing.
NEEDED = {
    "PIL", "annotated_types", "numpy", "pyarrow", "pydantic", "pydantic_core", "safetensors",
    "scipy", "sklearn", "timm", "torch", "torchvision", "typing_extensions", "typing_inspection",
    "yaml",
}  # fmt: skip

CODE = """
import importlib, json, sys
from pathlib import Path
root, rooms = Path(sys.argv[1]), sys.argv[2].split()
for room in rooms:
    for file in sorted((root / room).rglob("*.py")):
        name = ".".join(("gsfl_tune", *file.relative_to(root).with_suffix("").parts))
        importlib.import_module(name.removesuffix(".__init__"))
first = set(sys.modules)
asked = []
class Look:
    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while frame and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if frame and str(root) in frame.f_code.co_filename:
            asked.append(name.split(".")[0])
sys.meta_path.insert(0, Look())
from gsfl_tune.experiment import Experiment
from gsfl_tune.training import train
train(Experiment.load(sys.argv[3]), Path(sys.argv[4]), cache_dir=Path(sys.argv[5]))
print(json.dumps([sorted(first), sorted(set(sys.modules)), sorted(set(asked))]))
"""

TEXT = """\
name: tiny
data: {source: typefaces, image_size: 32, typefaces: {train: 6, test: 2, size: 40}}
model: {backbone: test_efficientnet, weights: none, latent_dim: 8}
training: {device: cpu, head: {epochs: 1}, finetune: {epochs: 1, blocks: 2}}
"""


class Loaded(NamedTuple):
    """Modules after every module of ours was imported, after both stages ran, and those that code
    of ours asked for while they ran."""

    first: set[str]
    last: set[str]
    asked: set[str]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> Loaded:
    folder = tmp_path_factory.mktemp("imports")
    (folder / "tiny.yaml").write_text(TEXT)
    done = subprocess.run(
        [
            sys.executable, "-c", CODE, str(PACKAGE), " ".join(ROOMS), str(folder / "tiny.yaml"),
            str(folder / "train"), str(folder / "cache"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return Loaded(*map(set, json.loads(done.stdout.splitlines()[-1])))


@pytest.mark.parametrize("name", ["ray", "optuna", "pandas", "matplotlib", "scipy", "sklearn"])
def test_importing_training_does_without(loaded, name):
    assert name not in loaded.first


@pytest.mark.parametrize("name", ["ray", "optuna", "matplotlib", "jinja2", "tensorboardX"])
def test_a_training_does_without(loaded, name):
    assert name not in loaded.last


def test_a_training_asks_for_nothing_that_is_not_listed(loaded):
    # pyarrow imports pandas where it is installed; of matplotlib only the fonts are looked up.
    found = loaded.asked & packages_distributions().keys()
    assert found - {"pandas", "matplotlib", "gsfl_tune", "openvino"} <= NEEDED
    assert "sklearn" in found  # or nothing was looked at


def test_the_kit_for_a_bare_gpu_machine_brings_what_such_a_machine_lacks():
    text = (PACKAGE.parent / "benchmarks" / "gpu" / "wheels.sh").read_text()
    for name in ("pydantic", "pydantic-core", "annotated-types", "typing-inspection", "timm"):
        assert f"  {name}==" in text
