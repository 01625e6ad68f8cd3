"""A trial whose processes lie on two nodes, each with a part of the parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gsfl_tune.run import EpochLog, RunDirectory
from tests.cluster.nodes import Nodes
from tests.search.experiments import experiment
from tests.search.workers.test_rank_pool import FINETUNE, trained

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
