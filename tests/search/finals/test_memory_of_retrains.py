"""Retrains whose processes Ray ends for want of memory, on a Ray that does so early."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray._private.utils import get_system_memory, get_used_memory

from gsfl_tune.cluster import Slots, ray_session
from gsfl_tune.run import EpochLog, RunDirectory, read_json, write_json
from gsfl_tune.search import Job, Watcher
from tests.search.experiments import experiment, retrained
from tests.search.ray_tune.test_memory_monitor import MARGIN

EPOCHS = 12
# A user's package with a term of the loss: a batch of more than 16 takes all memory, once some
# epochs are over.
TERM = """\
import time
import torch
from gsfl_tune.losses import LossTerm

class Hungry(LossTerm):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def __call__(self, batch):
        self.steps += 1
        if len(batch.labels) > 16 and self.steps > 8:
            eaten = []
            for _ in range(120):
                eaten.append(b"x" * (100 * 2**20))
                # Ray looks at the memory every 100 ms; nothing tells that it has looked.
                time.sleep(0.05)
            raise RuntimeError("nobody ended this process")
        return batch.shared.square().mean()


class Greedy(LossTerm):
    # Asks for more than there is, which is refused at once.
    def __call__(self, batch):
        if len(batch.labels) > 16:
            torch.empty(1 << 50, dtype=torch.uint8)
        return batch.shared.square().mean()
"""


class Witness(Watcher):
    """Keeps what is told, and what a retrain had done when its memory ran out."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self.told: list[str] = []
        self.before: dict[str, list[Any]] = {}

    def notice(self, text: str) -> None:
        self.told.append(text)
        name = text.partition(" ran out")[0]
        if "it continues" in text:
            self.before[name] = EpochLog(self._run.finals / name / "epochs.jsonl").read()


def main(path: str, cache: str) -> None:
    run = RunDirectory(path)
    witness = Witness(run)

    def job(name: str, batch: int, term: str = "hungry", **options: Any) -> Job:
        config = experiment(
            f"training.head.epochs={EPOCHS}",
            f"training.head.batch_size={batch}",
            f"loss.terms.{term}=0.001",
        ).defaults()
        return Job(name=name, config=config, directory=run.finals / name, **options)

    jobs = [
        job("finalist", 32, seed=1),
        job("winner", 32, seed=2, fit="train+validation", test=True),
        job("large", 64, seed=1),
        # Its process is told that there is no memory, and goes on by itself.
        job("greedy", 32, term="greedy", seed=3),
    ]
    with ray_session(cpus=1):
        outcome = retrained(
            jobs,
            run,
            resources=Slots(cpu=1, gpu=0, count=1),
            cache_dir=Path(cache),
            watchers=[witness],
            save_seconds=0,
            # Crashes are not forgiven here: want of memory is none of them.
            max_failures=0,
        )
    found = {"results": outcome.results, "told": witness.told, "before": witness.before}
    write_json(run.path / "found.json", found)


@pytest.mark.slow
@pytest.mark.skipif(psutil.virtual_memory().available < 2 * MARGIN, reason="needs memory to waste")
def test_retrains_that_take_their_nodes_memory_go_on_with_half_the_batch(
    run: RunDirectory, cache_dir: Path, tmp_path: Path
) -> None:
    info = tmp_path / "site" / "hungry-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hungry\nVersion: 1.0\n")
    terms = "hungry = hungry:Hungry\ngreedy = hungry:Greedy\n"
    (info / "entry_points.txt").write_text(f"[gsfl_tune.loss_terms]\n{terms}")
    (tmp_path / "site" / "hungry.py").write_text(TERM)
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {
        "RAY_memory_usage_threshold": str((get_used_memory() + MARGIN) / get_system_memory()),
        "RAY_memory_monitor_refresh_ms": "100",
        "PYTHONPATH": os.pathsep.join(
            [str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.search.finals.test_memory_of_retrains",
            str(run.path),
            cache_dir,
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = read_json(run.path / "found.json")
    finalist, winner, large, greedy = found["results"]
    halved = "ran out of memory: it continues with batches in two halves"
    assert sorted(found["told"]) == [
        f"finalist {halved}",
        "greedy ran out of memory: it was trained with batches in two halves",
        f"large {halved}",
        f"winner {halved}",
    ]
    assert greedy["epochs"] == EPOCHS
    assert finalist["epochs"] == winner["epochs"] == EPOCHS
    assert "accuracy" in finalist["validation"]
    assert "accuracy" in winner["test"]
    # Not begun again: the epochs before, their seconds included, are those of the first process.
    for name in ("finalist", "winner"):
        before = found["before"][name]
        log = EpochLog(run.finals / name / "epochs.jsonl").read()
        assert 0 < len(before) < EPOCHS
        assert log[: len(before)] == before
        assert [record["epoch"] for record in log] == list(range(1, EPOCHS + 1))
    # Half of its batch is too much as well: it is not tried for ever.
    assert "out of memory, at half the batch too" in large["failed"]
    assert "its node ran low on memory" in large["failed"]


if __name__ == "__main__":
    main(*sys.argv[1:])
