"""A budget in time, from the command to the tested bundle."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess

import pytest

from . import warm
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


@pytest.fixture(scope="module")
def smallest(home) -> int:
    """Seconds of the smallest budget that this machine, as busy as it is, is told to be enough."""
    done = gsfl_tune(home, "search", "timed.yaml", "--time", "20s", "--run-dir", "runs/short")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "runs" / "short" / "run.json").exists()
    said = r"search\.time_budget: found 20 s, allowed here at least (\S+) (s|min|h): "
    ((amount, unit),) = re.findall(said, done.stderr)
    whole, _, rest = amount.partition(":")  # as in 3:30 min
    factor = {"s": 1, "min": 60, "h": 3600}[unit]
    return int(whole) * factor + int(rest or 0) * factor // 60


@pytest.mark.slow
def test_a_budget_for_nothing_is_refused_with_the_smallest_and_nothing_is_written(home, smallest):
    assert smallest >= 30
    done = gsfl_tune(home, "search", "timed.yaml", "--time", "soon")
    assert done.returncode == 2
    assert "search.time_budget" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_budget_is_planned_kept_and_survives_a_kill(home, smallest):
    """How long it takes is up to the machine; the plan and the clock of the run are not."""
    log, run = home / "first.log", home / "runs" / "timed"
    budget = 2 * smallest  # for it may be busier soon
    words = command(home, "search", "timed.yaml", "--time", f"{budget}s")
    with log.open("w") as out:
        driver = subprocess.Popen(words, cwd=home, env=environment(home), stdout=out, stderr=out)
    try:
        wait_until(
            lambda: any(run.glob("trials/*/epochs.jsonl")),
            "a trial has trained",
            timeout=5 * budget,
            process=driver,
            output=log.read_text,
        )
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    plan = json.loads((run / "plan.json").read_text())
    assert plan["head_epochs"] > 0
    text = log.read_text()
    assert text.index("plan for ") < text.index("trial 0")
    spent = json.loads((run / "run.json").read_text())["seconds"]

    # Another budget: epochs stay as they were planned.
    again = budget + 30
    words = ["search", "timed.yaml", "--time", f"{again}s", "--resume"]
    done = warm.run(words, cwd=home, env=environment(home), timeout=10 * budget)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"plan for [^,]*, resumed: ", done.stdout)
    assert json.loads((run / "plan.json").read_text()) == plan
    results = json.loads((run / "results.json").read_text())
    stages = results["winner"]["config"]["training"]
    assert stages["finetune"]["epochs"] == plan["finetune_epochs"]
    assert stages["head"]["epochs"] == plan["head_epochs"]
    assert results["winner"]["validation"]["accuracy"]["values"]
    assert results["control"]["validation"]["accuracy"]["values"]
    assert results["winner"]["trial"] in {each["trial"] for each in results["finalists"]}
    # It is the budget that ended the search, with both drivers' time, and not a number of trials.
    assert plan["alone"] or re.search(r"search: .*search\.time_budget", done.stdout)
    total = json.loads((run / "run.json").read_text())["seconds"]
    assert all(total[phase] >= seconds for phase, seconds in spent.items())
