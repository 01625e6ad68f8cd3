"""Packages that add something, installed as a user installs them, used by the commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from gsfl_tune import plugins
from gsfl_tune.models import POOLINGS, create_pooling

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"

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
[gsfl_tune.samplers]
wrong_sampler = my_broken:Wrong
"""

BROKEN_CODE = """\
from torch import nn
from gsfl_tune.models import Pooling

class Wrong:
    pass

class Learns(Pooling):
    def __init__(self, channels):
        super().__init__()
        self.channels = self.dim = channels
        self.power = nn.Parameter(nn.init.ones_(nn.Linear(1, 1).weight))
    def forward(self, maps):
        return maps.mean((2, 3))

def resnet18(**options): ...
def unregistered(**options): ...
"""


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


def run(*arguments: object, packages: Path | None = None, cwd: Path | None = None):
    paths = [str(packages)] if packages else []
    root = str(Path(plugins.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "gsfl_tune", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*paths, root]), "OMP_NUM_THREADS": "1"},
    )


def test_every_pooling_that_is_named_can_be_made():
    assert set(POOLINGS) == set(plugins.BUILT_IN["pooling"])
    for name in POOLINGS:
        assert create_pooling(name, 4, dim=16).channels == 4


def test_files_editors_and_messages_know_what_is_installed(installed, tmp_path):
    done = run("check", EXAMPLE / "search.yaml", packages=installed)
    assert done.returncode == 0, done.stderr
    assert "loss.terms" in done.stdout
    assert "choice of gem3, gem5" in " ".join(done.stdout.split())
    schema = json.loads(run("schema", packages=installed).stdout)
    assert schema["properties"]["model"]["properties"]["pooling"]["anyOf"][0]["enum"] == [
        *POOLINGS, "gem3", "gem5",
    ]  # fmt: skip
    assert "decorrelation" in schema["properties"]["loss"]["properties"]["terms"]["properties"]
    wrong = run(
        "check", EXAMPLE / "search.yaml", "--set", "model.pooling=gem4",
        "--set", "model.backbone=textur_net", packages=installed,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "found 'gem4', allowed average, bilinear, compact_bilinear, gem3, gem5" in wrong.stderr
    wrong = run(
        "check", EXAMPLE / "search.yaml", "--set", "model.backbone=textur_net", packages=installed
    )
    assert "did you mean texture_net" in wrong.stderr


def test_without_the_package_every_name_is_a_problem():
    done = run("check", EXAMPLE / "search.yaml")
    assert done.returncode == 2
    assert "model.pooling" in done.stderr
    assert "found 'gem3', allowed average, bilinear, compact_bilinear\n" in done.stderr
    assert "unknown key, allowed none: no installed package adds any" in done.stderr
    assert "found 'inherit', allowed tpe, gp, cmaes, random, sobol, grid" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_configuration_is_trained_through_both_stages(installed, tmp_path):
    done = run("train", EXAMPLE / "search.yaml", "--dir", tmp_path / "t", packages=installed)
    assert done.returncode == 0, done.stderr
    epochs = [json.loads(line) for line in (tmp_path / "t" / "epochs.jsonl").open()]
    assert [epoch["stage"] for epoch in epochs] == ["head", "head", "head", "finetune"]
    for epoch in epochs:
        assert 0 < epoch["train/decorrelation"] < 1
        weighted = sum(
            weight * epoch[f"train/{name}"]
            for name, weight in (
                ("cross_entropy", 1), ("reconstruction", 0.17), ("class_center", 0.005),
                ("shared_center", 0.075), ("decorrelation", 0.1),
            )
        )  # fmt: skip
        assert epoch["train/loss"] == pytest.approx(weighted, rel=1e-4)


def test_a_search_uses_them_in_its_workers_and_its_bundle_too(installed, tmp_path):
    done = run("search", EXAMPLE / "search.yaml", "--run-dir", tmp_path / "run", packages=installed)
    assert done.returncode == 0, done.stderr + done.stdout
    trials = pandas.read_parquet(tmp_path / "run" / "trials.parquet")
    assert len(trials) == 4
    assert trials["params.loss.terms.decorrelation"].nunique() > 1
    assert (trials["train/decorrelation"] > 0).all()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["environment"]["packages"]["my-plugins"] == "0.1.0"
    assert results["winner"]["config"]["model"]["backbone"] == "texture_net"
    best = tmp_path / "run" / "best"
    data = tmp_path / "samples"
    run("data", EXAMPLE / "search.yaml", "--samples", data, "--sheet", tmp_path / "s.png")
    image = next(iter(data.glob("*.png")), None)
    if image is None:  # `data` needs the package to read the file
        run(
            "data", EXAMPLE / "search.yaml", "--samples", data, "--sheet", tmp_path / "s.png",
            packages=installed,
        )  # fmt: skip
        image = next(data.glob("*.png"))
    assert run("predict", best, image, packages=installed).returncode == 0
    lacking = run("predict", best, image)
    assert lacking.returncode == 2
    assert "texture_net" in lacking.stderr
    assert "Traceback" not in lacking.stderr


def test_what_cannot_be_used_is_said_in_one_line_each(tmp_path):
    folder = tmp_path / "site"
    info = folder / "my_broken-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-broken\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(BROKEN)
    (folder / "my_broken.py").write_text(BROKEN_CODE)
    file = tmp_path / "x.yaml"
    file.write_text("name: x\ndata: {source: typefaces}\n")
    done = run("check", file, packages=folder)
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert all(line.startswith("my-broken 2.0: entry point gsfl_tune.") for line in said)
    assert [line.partition("found ")[2].partition(",")[0] for line in said] == [
        "Gem", "average", "reconstruction",
    ]  # fmt: skip
    # Without those: what is only found out when it is used.
    lines = [line for line in BROKEN.splitlines() if not line.startswith(("Gem", "average", "rec"))]
    (info / "entry_points.txt").write_text("\n".join(lines))
    assert run("check", file, packages=folder).returncode == 0
    for override, reason in [
        ("model.pooling=gone", "pooling gone of my-broken 2.0 cannot be loaded (ModuleNotFound"),
        ("model.pooling=wrong", "which is no subclass of gsfl_tune.models.pooling.Pooling"),
        ("model.pooling=learns", "has parameters (power), allowed are buffers"),
        ("model.backbone=resnet18", "timm has a model of this name"),
        ("model.backbone=unregistered", "timm.models.register_model decorates"),
        ("loss.terms.halves=0.5", "which is no subclass of gsfl_tune.losses.terms.LossTerm"),
        ("search.sampler.name=wrong_sampler", "no subclass of gsfl_tune.search.added.Sampler"),
    ]:
        done = run("check", file, "--set", override, "--set", "model.weights=none", packages=folder)
        assert (done.returncode, reason in done.stderr) == (2, True), done.stderr
        assert len(done.stderr.splitlines()) == 1
