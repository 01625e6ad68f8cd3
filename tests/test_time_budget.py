"""A budget in time, from the command to the tested bundle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

from .commands import command, environment, gsfl_tune
from .waiting import wait_until

EXPERIMENT = """\
name: timed
data:
  source: typefaces
  image_size: 32
  views: 4
  augment: {flip: false}
  typefaces: {train: 6, test: 3, size: 40}
model:
  backbone: test_efficientnet
  weights: none
  latent_dim: {int: [8, 32]}
training:
  device: cpu
  head: {batch_size: 32, learning_rate: {float: [1e-3, 1e-2], log: true}}
  finetune:
    batch_size: 32
    blocks: {choice: [2, 1]}
    learning_rate: {float: [1e-4, 1e-2], log: true}
search:
  scheduler: {grace: 10}
  resources: {cpu: 1, gpu: 0}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("timed")
    (folder / "timed.yaml").write_text(EXPERIMENT)
    return folder


@pytest.mark.slow
def test_a_budget_for_nothing_is_refused_with_the_smallest_and_nothing_is_written(home):
    done = gsfl_tune(home, "search", "timed.yaml", "--time", "20s", "--run-dir", "runs/short")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "search.time_budget: found 20 s, allowed here at least" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "runs" / "short" / "run.json").exists()
    done = gsfl_tune(home, "search", "timed.yaml", "--time", "soon")
    assert done.returncode == 2
    assert "search.time_budget" in done.stderr


@pytest.mark.slow
def test_a_budget_is_planned_kept_and_survives_a_kill(home):
    log = home / "first.log"
    words = command(home, "search", "timed.yaml", "--time", "2m")
    with log.open("w") as out:
        driver = subprocess.Popen(words, cwd=home, env=environment(home), stdout=out, stderr=out)
    try:
        wait_until(
            lambda: "] complete" in log.read_text() or "complete," in log.read_text(),
            "a trial is complete",
            timeout=110,
            process=driver,
            output=log.read_text,
        )
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    run = home / "runs" / "timed"
    plan = json.loads((run / "plan.json").read_text())
    assert plan["finetune_epochs"] > 0
    text = log.read_text()
    assert text.index("plan for 2 min:") < text.index("trial 0 ")
    spent = json.loads((run / "run.json").read_text())["seconds"]

    # Another budget: epochs stay as they were planned.
    started = time.monotonic()
    done = gsfl_tune(home, "search", "timed.yaml", "--time", "150s", "--resume")
    took = time.monotonic() - started
    assert done.returncode == 0, done.stdout + done.stderr
    assert "plan for 2:30 min, resumed: " in done.stdout
    assert json.loads((run / "plan.json").read_text()) == plan
    results = json.loads((run / "results.json").read_text())
    stages = results["winner"]["config"]["training"]
    assert stages["finetune"]["epochs"] == plan["finetune_epochs"]
    assert stages["head"]["epochs"] == plan["head_epochs"]
    assert results["winner"]["validation"]["accuracy"]["values"]
    assert results["control"]["validation"]["accuracy"]["values"]
    assert results["winner"]["trial"] in {each["trial"] for each in results["finalists"]}
    # Both drivers together; a busy machine may take its time, twice the budget is no budget.
    assert sum(spent.values()) + took < 300
