"""A trial whose processes lie on two nodes, each with a part of the parameters."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
import torch

from gsfl_tune.run import EpochLog, RunDirectory
from tests.cluster.nodes import Nodes
from tests.search.experiments import experiment
from tests.search.workers.test_rank_pool import FINETUNE, ranks_below, trained
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

OVERRIDES = (
    "model.head=gsfl",
    "training.precision=fp32",
    *FINETUNE,
    "training.ema=0.5",
    "search.trials=1",
    "search.scheduler.name=none",
    "search.sampler.name=random",
)


@pytest.fixture(scope="module")
def pair() -> Iterator[Nodes]:
    """Two raylets with a core each: a trial of two processes does not fit on one."""
    nodes = Nodes()
    try:
        nodes.start(cpus=1)
        nodes.start(cpus=1)
        nodes.wait(2)
        yield nodes
    finally:
        nodes.close()


def test_a_trial_on_two_nodes_equals_one_process(pair: Nodes, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    pair.environment["RAY_ADDRESS"] = pair.address
    done = pair.python("-m", "tests.search.spread_driver", run.path, tmp_path / "cache", *OVERRIDES)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    ((state, value, params),) = found["trials"]
    assert state == "COMPLETE"
    # Both for the trial and for the retrain.
    assert [sorted(group) for group in found["nodes"]] == [sorted(found["alive"])]
    chosen = experiment(*OVERRIDES).configure(params)
    torch.set_num_threads(1)
    one = trained(chosen, tmp_path / "one", tmp_path / "cache", None)
    records = EpochLog(run.trial("search", 0) / "epochs.jsonl").read()
    for ours, theirs in zip(one.log.read(), records, strict=True):
        numbers = {key: value for key, value in ours.items() if "/" in key}
        assert numbers == pytest.approx({key: theirs[key] for key in numbers}, rel=1e-5, abs=1e-6)
    assert value == pytest.approx(records[-1]["validation/nll"])
    # The checkpoint is that of one process, tensor by tensor.
    states = [
        torch.load(each / "checkpoint.pt", weights_only=True)
        for each in (tmp_path / "one", run.trial("search", 0))
    ]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0]["module"].items():
        assert torch.allclose(tensor, states[1]["module"][name], rtol=1e-5, atol=1e-5), name
    retrain = trained(chosen, tmp_path / "again", tmp_path / "cache", None, seed=1)
    expected = retrain.scoring.of("test", retrain.predict("test"))
    assert found["retrain"]["test"] == pytest.approx(expected, rel=1e-4, abs=1e-5)


EPOCHS = 12


def kill(node: subprocess.Popen[bytes]) -> None:
    """``kill -9`` for a node and everything on it."""
    family = psutil.Process(node.pid).children(recursive=True)
    node.kill()
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    node.wait()


@pytest.mark.timeout(2400)
def test_a_trial_that_loses_a_node_goes_on_where_others_are(tmp_path: Path) -> None:
    run, nodes = RunDirectory(tmp_path / "run"), Nodes()
    log, output = EpochLog(run.trial("search", 0) / "epochs.jsonl"), tmp_path / "output.txt"
    # The loss of a node is no failure of the trial.
    overrides = (*OVERRIDES, f"training.finetune.epochs={EPOCHS}", "search.max_failures=0")
    with ExitStack() as stack:
        stack.callback(nodes.close)
        nodes.start(cpus=0)
        workers = [nodes.start(cpus=1), nodes.start(cpus=1)]
        nodes.wait(3)
        nodes.environment["RAY_ADDRESS"] = nodes.address
        with output.open("wb") as sink:
            driver = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.search.spread_driver", str(run.path)),
                    *(str(tmp_path / "cache"), *overrides),
                ],
                env=nodes.environment,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        stack.callback(driver.kill)

        def holder_after(epochs: int) -> subprocess.Popen[bytes] | None:
            """The node of rank 1, once so many epochs are trained."""
            if len(log.read()) <= epochs:
                return None
            held = [node for node in workers if ranks_below(psutil.Process(node.pid))]
            return held[0] if held else None

        def await_holder(epochs: int) -> subprocess.Popen[bytes]:
            return wait_until(
                lambda: holder_after(epochs),
                f"two nodes have trained {epochs} epochs",
                timeout=600,
                process=driver,
                output=output.read_text,
            )

        # First the node of the further process, then that of the trial's own.
        victim = await_holder(2)
        reached = len(log.read())
        for number in range(2):
            kill(victim)
            workers.remove(victim)
            workers.append(nodes.start(cpus=1))
            if number == 0:
                holder = await_holder(reached + 2)
                (victim,) = (node for node in workers if node is not holder)
                assert len(log.read()) < EPOCHS
        assert driver.wait(900) == 0, output.read_text()
    lines = output.read_text().splitlines()
    found = json.loads(lines[-1])
    ((state, value, params),) = found["trials"]
    assert state == "COMPLETE"
    # The first pair of nodes, the second and the third.
    assert len(found["nodes"]) >= 3
    records = log.read()
    assert [record["epoch"] for record in records] == list(range(1, EPOCHS + 2))
    torch.set_num_threads(1)
    chosen = experiment(*overrides).configure(params)
    one = trained(chosen, tmp_path / "one", tmp_path / "cache", None).log.read()
    for ours, theirs in zip(one, records, strict=True):
        assert ours["validation/nll"] == pytest.approx(theirs["validation/nll"], rel=1e-4)
    assert value == pytest.approx(records[-1]["validation/nll"])
