"""Nodes with real faults: mounts that are missing, other code, frozen processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from gsfl_tune.cluster import data_paths
from gsfl_tune.experiment import Experiment
from tests import warm
from tests.cluster.nodes import PACKAGE, Nodes, can_unshare, mounted

EXPERIMENT = """\
name: tiny
data: {{source: folder, path: {data}, image_size: 32}}
model: {{backbone: test_efficientnet, weights: none, latent_dim: {{choice: [8, 16]}}}}
training:
  device: cpu
  head: {{epochs: 3, batch_size: 8}}
search:
  trials: 8
  control: off
  finalists: 1
  final_seeds: 1
  scheduler: {{name: none}}
  resources: {{cpu: 1, gpu: 0}}
"""

needs_mounts = pytest.mark.skipif(not can_unshare(), reason="needs the right to mount")


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    started = Nodes()
    yield started
    started.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with an experiment and 24 images, and one that nodes share for runs."""
    for label in ("ash", "elm"):
        folder = tmp_path / "data" / label
        folder.mkdir(parents=True)
        for number in range(12):
            color = (20 * number, 99 if label == "ash" else 0, 7)
            Image.new("RGB", (40, 40), color).save(folder / f"{number}.png")
    (tmp_path / "shared").mkdir()
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT.format(data=tmp_path / "data"))
    return tmp_path


def _lines(output: str, node: str) -> list[str]:
    return [line for line in output.splitlines() if f"{node}: " in line]


@needs_mounts
@pytest.mark.slow
def test_a_node_without_the_data_and_the_run_directory_is_named(nodes: Nodes, home: Path) -> None:
    hidden = f"mount -t tmpfs none {home}/data && mount -t tmpfs none {home}/shared"
    nodes.start()
    nodes.start(before=mounted(hidden))
    nodes.wait(2)
    arguments = [home / "tiny.yaml", "--address", nodes.address, "--run-dir", home / "shared/run"]
    done = nodes.gsfl_tune("doctor", *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    table, *_ = done.stdout.partition("127.0.0.1/")
    rows = [line.split() for line in done.stdout.splitlines()[:3]]
    assert max(map(len, done.stdout.splitlines()[:3])) <= 80, table
    (good, bad) = (next(row for row in rows if row[1] == state) for state in ("shared", "no"))
    assert good[2] == "24"
    problems = _lines(done.stdout, bad[0])
    assert len(problems) == 2, done.stdout
    assert "is not the driver's" in problems[0]
    assert f"0 files in {home}/data, the driver has 24" in problems[1]
    assert _lines(done.stdout, good[0]) == []
    # Nothing is left of the question, not even the directory.
    assert list((home / "shared").iterdir()) == []
    # A search refuses for the same reasons, before it begins.
    done = nodes.gsfl_tune("search", *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(_lines(done.stderr, bad[0])) == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "shared/run/run.json").exists()


@needs_mounts
@pytest.mark.slow
def test_every_kind_of_fault_has_its_line(nodes: Nodes, home: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = shutil.copytree(PACKAGE, tmp_path / "other" / "gsfl_tune")
    (other / "report" / "tables.py").open("a").write("# edited\n")
    shutil.copytree(home / "data", tmp_path / "copy")
    shutil.copy(home / "data/ash/0.png", tmp_path / "copy/ash/same count.png")
    (tmp_path / "copy/ash/1.png").unlink()
    nodes.start()
    faults = {
        "code": f"mount --bind {other} {PACKAGE}",
        "data": f"mount --bind {tmp_path / 'copy'} {home}/data",
        "read-only": f"mount --bind {home}/shared {home}/shared && "
        f"mount -o remount,ro,bind {home}/shared",
        "full": f"mkdir -p {nodes.directory}/cache && "
        f"mount -t tmpfs -o size=8m none {nodes.directory}/cache && ulimit -n 2048",
    }
    for commands in faults.values():
        nodes.start(before=mounted(commands))
    nodes.wait(5)
    arguments = [home / "tiny.yaml", "--address", nodes.address, "--run-dir", home / "shared/run"]
    done = nodes.gsfl_tune("doctor", *arguments, "--json")
    assert done.returncode == 2, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert not found["good"]
    assert len(found["nodes"]) == 5
    problems = {
        finding["node"]: finding["found"]
        for finding in found["findings"]
        if finding["severity"] == "problem"
    }
    assert len(problems) == 4, found["findings"]
    for expected in (
        "another state of gsfl-tune's code",
        f"other files in {home}/data than the driver has, as many",
        "Read-only file system",
        f"MiB left for the cache {nodes.directory}/cache",
    ):
        assert sum(expected in text for text in problems.values()) == 1, (expected, problems)
    [full] = [node for node, text in problems.items() if "MiB left" in text]
    limits = {node["node"]: node["answer"]["open_files"][0] for node in found["nodes"]}
    assert limits[full] == 2048
    assert [f for f in found["findings"] if f["node"] == full and "2048 open" in f["found"]]
    # A node that froze is named when its time is over.
    frozen = nodes.processes[4]
    family = psutil.Process(frozen.pid).children(recursive=True)
    raylet = next(process for process in family if process.name() == "raylet")
    raylet.send_signal(signal.SIGSTOP)
    try:
        done = nodes.gsfl_tune("doctor", "--address", nodes.address, "--timeout", 8)
    finally:
        raylet.send_signal(signal.SIGCONT)
    assert done.returncode == 2
    silent = [line for line in done.stdout.splitlines() if "did not answer in 8 s" in line]
    assert len(silent) == 1, done.stdout
    assert silent[0].startswith("127.0.0.1/")


@pytest.mark.slow
def test_trials_take_gpus_evenly_and_a_cluster_may_grow(nodes: Nodes, home: Path) -> None:
    nodes.start(cpus=0)
    nodes.wait(1)
    shared = ["--address", nodes.address, "--run-dir", home / "shared/run"]
    asked = ["--set", "search.resources.gpu=0.33", "--set", "search.max_concurrent=4"]
    refused = nodes.gsfl_tune("search", home / "tiny.yaml", *shared, *asked)
    assert refused.returncode == 2
    assert "found no node that holds one, the cluster has 1 node of 0 CPU cores" in refused.stderr
    assert "search.resources.wait" in refused.stderr
    # The node comes while the search waits for it: four logical GPUs, and what tells of them.
    tool = home / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    rows = "".join(f"{i}, GPU-{i}, NVIDIA X, 81559, {1000 + i}, {20 * i}\\n" for i in range(4))
    tool.write_text(f"#!/bin/sh\nprintf '{rows}'\n")
    tool.chmod(0o755)
    path = f"PATH={tool.parent}:{os.environ['PATH']}"
    later = threading.Timer(20, lambda: nodes.start(cpus=4, gpus=4, before=["env", path]))
    later.start()
    waiting = ["--set", "search.resources.wait=120"]
    done = nodes.gsfl_tune("search", home / "tiny.yaml", *shared, *asked, *waiting)
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads((home / "shared/run/utilisation.json").read_text())
    # A third each would have gone to two GPUs.
    assert [gpu["gpu"] for gpu in measured["gpus"]] == ["0", "1", "2", "3"]
    assert all(0 < gpu["occupied"] <= 1 for gpu in measured["gpus"]), measured
    assert [gpu["busy"] for gpu in measured["gpus"]] == [0.0, 0.2, 0.4, 0.6]
    assert measured["gpus"][3]["memory"] == 1003 * 2**20
    assert 0 < measured["slots_busy"] <= 1
    assert "busy 0 %, 20 %, 40 %, 60 % of the time" in " ".join(done.stdout.split())
    shown = nodes.gsfl_tune("results", home / "shared/run", "--json")
    assert json.loads(shown.stdout)["utilisation"]["gpus"] == measured["gpus"]
    done = nodes.gsfl_tune("doctor", "--address", nodes.address)
    assert done.returncode == 0, done.stdout
    assert "4x80G" in done.stdout


def test_every_file_that_trials_read_is_asked_for(tmp_path: Path) -> None:
    for folder in ("data/ash", "more", "most"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("texts.csv", "text.pt"):
        (tmp_path / file).touch()
    text = (
        f"name: x\ndata:\n  source: folder\n  path: {tmp_path}/data\n"
        f"  unlabelled: [{tmp_path}/more, {tmp_path}/most]\n  class_text: {tmp_path}/texts.csv\n"
        f"  text_model: ViT-B-32\n  text_weights: {tmp_path}/text.pt\n"
        "model: {weights: none, classifier_init: class_text}\n"
        "training: {method: fixmatch, finetune: {epochs: 2}}\n"
    )
    names = ("data", "more", "most", "text.pt", "texts.csv")
    asked = data_paths(Experiment.parse(text, file="x"))
    assert sorted(asked) == [str(tmp_path / name) for name in names]


def test_this_machine_alone_is_asked_without_ray(home: Path, tmp_path: Path) -> None:
    nodes = Nodes()
    try:
        script = (
            "import resource, sys\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))\n"
            "from gsfl_tune.cli import main\n"
            "code = main(sys.argv[1:])\n"
            "import ray\n"
            "assert not ray.is_initialized()\n"
            "sys.exit(code)\n"
        )
        run = home / "shared/run"
        words = ["doctor", home / "tiny.yaml", "--run-dir", run]
        done = warm.run(words, code=script, env=nodes.environment)
    finally:
        nodes.close()
    assert done.returncode == 2, done.stderr
    head, row, problem, total = done.stdout.splitlines()
    assert head.split()[0] == "node"
    assert row.split()[1:4] == ["good", "24", "same"]
    assert "512 open files a process are allowed" in problem
    assert "ulimit -n 65536" in problem
    assert total == "1 node: 1 problem"
    assert not run.exists()
    assert os.listdir(home / "shared") == []
