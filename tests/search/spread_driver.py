"""A search whose trials lie on several nodes: ``python -m tests.search.spread_driver RUN CACHE``.

Joins the Ray at RAY_ADDRESS. Prints, as JSON, the states and values of the trials, the nodes on
which each of them had its processes, and the result of a retrain.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ray
from ray.util import placement_group_table

from gsfl_tune.cluster import Slots, ray_session
from gsfl_tune.run import RunDirectory, run_lock
from gsfl_tune.search import Job, Watcher
from tests.search.experiments import experiment, retrained, searched
from tests.waiting import wait_until


def _places() -> list[dict[str, str]]:
    """Returns the nodes of each placement group that there is now, by bundle."""
    groups = placement_group_table().values()
    return [each["bundles_to_node_id"] for each in groups if each["state"] == "CREATED"]


class Nodes(Watcher):
    """Notes the nodes of placement groups while trials run."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, ...]] = set()

    def tick(self) -> None:
        self.seen |= {tuple(sorted(nodes.values())) for nodes in _places()}


def main(path: str, cache: str, *overrides: str) -> None:
    run, nodes = RunDirectory(path), Nodes()
    tried = experiment(*overrides)
    options: dict[str, Any] = {
        "resources": Slots(cpu=2, gpu=0, count=1, workers=2, shard=True),
        "cache_dir": Path(cache),
        "watchers": [nodes],
        "save_seconds": 0,
    }
    with run_lock(run), ray_session():
        alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        study = searched(tried, run, **options).study
        config = tried.configure(study.trial(0).params)
        job = Job(name="retrain", config=config, seed=1, directory=run.finals / "one", test=True)
        (result,) = retrained([job], run, **options).results
        wait_until(lambda: not _places(), "every place is given back")
    trials = [(t.state.name, t.value, t.params) for t in study.trials()]
    found = {"alive": alive, "trials": trials, "nodes": list(nodes.seen), "retrain": result}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
