"""Packages that add something, installed as a user installs them, used by the commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pandas
import pytest

from gsfl_tune import plugins
from gsfl_tune.models import POOLINGS, create_pooling

from . import warm

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"
FILE = str(EXAMPLE / "search.yaml")

BROKEN = """\
[gsfl_tune.poolings]
average = my_broken:Average
Gem = my_broken:Gem
gone = my_broken.nothing:Gone
wrong = my_broken:Wrong
learns = my_broken:Learns
[gsfl_tune.backbones]
resnet18 = my_broken:resnet18
unregistered = my_broken:unregistered
[gsfl_tune.loss_terms]
reconstruction = my_broken:Wrong
halves = my_broken:Wrong
fails = my_broken:Fails
[gsfl_tune.transforms]
erasing = my_broken:Wrong
bends = my_broken:Wrong
[gsfl_tune.methods]
single = my_broken:Wrong
both = my_broken:Wrong
[gsfl_tune.metrics]
nll = my_broken:Wrong
[gsfl_tune.samplers]
wrong_sampler = my_broken:Wrong
"""

BROKEN_CODE = """\
from torch import nn
from gsfl_tune.experiment.metrics import MetricOfPackage
from gsfl_tune.losses import LossTerm
from gsfl_tune.models import Pooling

class Wrong:
    pass

class Learns(Pooling):
    def __init__(self, channels):
        super().__init__()
        self.channels = self.dim = channels
        self.power = nn.Parameter(nn.Linear(1, 1).weight)
    def forward(self, maps):
        return maps.mean((2, 3))

class Fails(LossTerm):
    def __init__(self):
        raise KeyError("MY_KEY")
    def of(self, *arguments): ...

class Fallen(MetricOfPackage):
    def __init__(self):
        raise ValueError("settings of 2019")
    def of(self, logits, labels): ...

def resnet18(**options): ...
def unregistered(**options): ...
"""

# One process for many commands: most of the time of a command goes into importing torch.
COMMANDS = """\
import contextlib, io, json, sys
from gsfl_tune.cli import main
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""

PROPOSALS = """\
import sys
from gsfl_tune.experiment import Experiment
from gsfl_tune.run import RunDirectory
from gsfl_tune.search.ray_tune.runner import open_study
run = RunDirectory(sys.argv[2])
run.path.mkdir()
study = open_study(Experiment.load(sys.argv[1]), run)
for value in (0.2, 0.9, 0.4, *[0.1] * 12):
    asked = study.ask()
    study.complete(asked.number, value)
print(*[trial.params["loss.terms.decorrelation"] for trial in study.trials()])
"""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


def python(code: str, *arguments: str, packages: Path | None = None) -> str:
    """Runs a program in a process that has the packages; gives what it prints."""
    root = str(Path(plugins.__file__).parents[1])
    paths = [*([str(packages)] if packages else []), root]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = warm.run(arguments, code=code, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(*commands: Sequence[str], packages: Path | None = None) -> list[Answer]:
    """Calls gsfl-tune so many times."""
    printed = python(COMMANDS, json.dumps(commands), packages=packages)
    return [Answer(*json.loads(line)) for line in printed.splitlines()[-len(commands) :]]


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """Where the example package is installed; PYTHONPATH makes it one of the environment's."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, folder / "source")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--target", folder / "site", source),
        ],
        check=True,
    )
    return folder / "site"


CONTRACTS = """\
import sys
from pathlib import Path
import numpy as np
from my_plugins.loss import Decorrelation
from my_plugins.method import HardImages
from my_plugins.metric import WorstClass
from my_plugins.pooling import Gem3
from my_plugins.sampler import Inherit
from my_plugins.source import ImageArrays
from my_plugins.transform import Fog
from gsfl_tune import testing

file = Path(sys.argv[1])
pixels = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), dtype=np.uint8)
labels = np.array([[0], [1], [0], [1]])
arrays = {f"{part}_images": pixels for part in ("train", "val", "test")}
np.savez(file, **arrays, **{f"{part}_labels": labels for part in ("train", "val", "test")})
testing.check_loss_term(Decorrelation)
testing.check_method(HardImages)
testing.check_metric(WorstClass)
testing.check_pooling(Gem3)
testing.check_sampler(Inherit)
request = testing.source_request(str(file), file.parent)
testing.check_source(lambda: ImageArrays(request))
testing.check_transform(lambda: Fog(0.7, (0.5, 0.5, 0.5)))
print("kept")
"""


def test_the_example_keeps_the_contracts(installed, tmp_path):
    printed = python(CONTRACTS, str(tmp_path / "images.npz"), packages=installed)
    assert printed.split()[-1] == "kept"


def test_every_pooling_that_is_named_can_be_made():
    assert set(POOLINGS) == set(plugins.BUILT_IN["pooling"])
    for name in POOLINGS:
        assert create_pooling(name, 4, dim=16).channels == 4


def test_commands_know_what_is_installed_and_train_with_it(installed, tmp_path):
    trained = tmp_path / "trained"
    check, schema, unknown, misspelt, train = run(
        ["check", FILE],
        ["schema"],
        ["check", FILE, "--set", "model.pooling=gem4"],
        ["check", FILE, "--set", "model.backbone=textur_net"],
        ["train", FILE, "--dir", str(trained)],
        packages=installed,
    )
    assert (check.code, check.err) == (0, "")
    assert "choice of gem3, gem5" in " ".join(check.out.split())
    keys = json.loads(schema.out)["properties"]
    assert keys["model"]["properties"]["pooling"]["anyOf"][0]["enum"] == [*POOLINGS, "gem3", "gem5"]
    assert "decorrelation" in keys["loss"]["properties"]["terms"]["properties"]
    augment = keys["data"]["properties"]["augment"]["properties"]
    methods = keys["training"]["properties"]["method"]["anyOf"][0]["enum"]
    assert methods == [*plugins.BUILT_IN["method"], "hard_images"]
    assert "fog" in augment["transforms"]["properties"]
    assert unknown.code == misspelt.code == 2
    allowed = ", ".join([*POOLINGS, "gem3", "gem5"])
    assert f"found 'gem4', allowed {allowed}" in unknown.err
    assert "did you mean texture_net" in misspelt.err
    # Through both stages, with the term in the loss.
    assert train.code == 0, train.err
    epochs = [json.loads(line) for line in (trained / "epochs.jsonl").open()]
    assert [epoch["stage"] for epoch in epochs] == ["head", "head", "head", "finetune"]
    weights = {"cross_entropy": 1, "reconstruction": 0.17, "class_center": 0.005}
    weights |= {"shared_center": 0.075, "decorrelation": 0.1}  # the middle of its range
    for epoch in epochs:
        assert 0 <= epoch["validation/worst_class"] <= epoch["validation/accuracy"]
        assert 0 < epoch["train/decorrelation"] < 1
        total = sum(weight * epoch[f"train/{name}"] for name, weight in weights.items())
        assert epoch["train/loss"] == pytest.approx(total, rel=1e-4)


def test_the_sampler_of_a_package_proposes(installed, tmp_path):
    printed = python(PROPOSALS, FILE, str(tmp_path / "run"), packages=installed)
    values = printed.split()
    # It inherits from the best trial half of the time, and draws at random otherwise.
    assert values.count(values[1]) > 3
    assert len(set(values)) > 4


def test_without_the_package_every_name_is_a_problem():
    [done] = run(["check", FILE])
    assert done.code == 2
    assert "model.pooling.choice: found 'gem3', allowed average, bilinear, compact_b" in done.err
    assert "unknown key, allowed none: no installed package adds any" in done.err
    assert "found 'inherit', allowed tpe, gp, cmaes, random, sobol, grid" in done.err


def test_what_cannot_be_used_is_said_in_one_line_each(tmp_path):
    folder = tmp_path / "site"
    info = folder / "my_broken-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-broken\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(BROKEN)
    (folder / "my_broken.py").write_text(BROKEN_CODE)
    file = tmp_path / "x.yaml"
    file.write_text("name: x\ndata: {source: typefaces}\nmodel: {weights: none}\n")
    [done] = run(["check", str(file)], packages=folder)
    assert done.code == 2
    said = done.err.splitlines()
    assert all(line.startswith("my-broken 2.0: entry point gsfl_tune.") for line in said)
    found = [line.partition("found ")[2].partition(",")[0] for line in said]
    assert sorted(found) == ["Gem", "average", "erasing", "nll", "reconstruction", "single"]
    # Without those: what is only found out when it is used.
    lines = [
        line
        for line in BROKEN.splitlines()
        if not line.startswith(("Gem", "average", "rec", "erasing", "single", "nll"))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    expected = {
        "model.pooling=gone": "pooling gone of my-broken 2.0 cannot be loaded (ModuleNotFound",
        "model.pooling=wrong": "which is not a subclass of gsfl_tune.models.pooling.Pooling",
        "model.pooling=learns": "has parameters (power), allowed are buffers",
        "model.backbone=resnet18": "timm has a model of this name",
        "model.backbone=unregistered": "timm.models.register_model decorates",
        "loss.terms.halves=0.5": "which is not a subclass of gsfl_tune.losses.LossTerm",
        "loss.terms.fails=0.5": "made without arguments (KeyError: 'MY_KEY')",
        "data.augment.transforms.bends=0.5": "not a subclass of gsfl_tune.data.transforms.T",
        "training.method=both": "which is not a subclass of gsfl_tune.methods.Method",
        "search.sampler.name=wrong_sampler": "not a subclass of gsfl_tune.search.samplers.p",
    }
    unused, *used = run(
        ["check", str(file)],
        *[["check", str(file), "--set", override] for override in expected],
        packages=folder,
    )
    assert unused.code == 0, unused.err
    for answer, reason in zip(used, expected.values(), strict=True):
        assert answer.code == 2
        assert reason in answer.err
        assert len(answer.err.splitlines()) == 1


@pytest.mark.slow
def test_a_metric_that_cannot_be_had_is_a_problem_of_every_file(tmp_path):
    folder = tmp_path / "site"
    info = folder / "my_broken-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-broken\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[gsfl_tune.metrics]\nhalf = my_broken:Wrong\n")
    (folder / "my_broken.py").write_text(BROKEN_CODE)
    file = tmp_path / "x.yaml"
    file.write_text("name: x\ndata: {source: typefaces}\nmodel: {weights: none}\n")
    [done] = run(["check", str(file)], packages=folder)
    assert done.code == 2
    assert "metric half of my-broken 2.0 is my_broken:Wrong, which is not a subclass" in done.err
    plugins_of_package = "[gsfl_tune.metrics]\nhalf = my_broken:Fallen\n"
    (info / "entry_points.txt").write_text(plugins_of_package)
    [done] = run(["check", str(file)], packages=folder)
    assert done.code == 2
    reason = "cannot be made without arguments (ValueError: settings of 2019)"
    assert f"metric half of my-broken 2.0 {reason}" in done.err


@pytest.mark.slow
def test_a_search_uses_them_in_its_workers_and_its_bundle_too(installed, tmp_path):
    run_dir, samples = tmp_path / "run", tmp_path / "samples"
    sheet = str(tmp_path / "sheet.png")
    search, data = run(
        ["search", FILE, "--run-dir", str(run_dir)],
        ["data", FILE, "--samples", str(samples), "--sheet", sheet],
        packages=installed,
    )
    assert search.code == 0, search.err + search.out
    assert data.code == 0, data.err
    trials = pandas.read_parquet(run_dir / "trials.parquet")
    assert len(trials) == 4
    assert trials["params.loss.terms.decorrelation"].nunique() > 1
    assert (trials["train/decorrelation"] > 0).all()
    results = json.loads((run_dir / "results.json").read_text())
    assert results["environment"]["packages"]["my-plugins"] == "0.1.0"
    assert results["winner"]["config"]["model"]["backbone"] == "texture_net"
    predict = ["predict", str(run_dir / "best"), str(next(samples.glob("*.png")))]
    assert run(predict, packages=installed)[0].code == 0
    [lacking] = run(predict)
    assert lacking.code == 2
    assert "texture_net" in lacking.err


def test_no_package_can_add_a_term_with_the_name_of_a_built_in_one():
    """The table of terms is what is reserved: a further term needs no second list."""
    from gsfl_tune.experiment.loss_terms import LOSS_TERMS

    def complaint(name: str) -> str | None:
        entry = EntryPoint(name, "package:Term", plugins.GROUPS["loss_term"])
        return plugins._complaint("loss_term", entry, {})

    assert {*LOSS_TERMS} >= {"isda", "center", "causality"}
    for name in (*LOSS_TERMS, "reconstruction", "copy"):
        assert "a name that is taken" in str(complaint(name))
    assert complaint("a_new_term") is None
