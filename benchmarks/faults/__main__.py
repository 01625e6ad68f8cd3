"""Kills every part of a cluster in the middle of a search, and counts what that cost.

Three Ray nodes on this machine (`ray.cluster_utils.Cluster`): a head without slots and two workers
of one. A search with one trial at a time, TPE and ASHA is run to its end undisturbed, then once
for every fault; each must end with the same trials, rung values and winner. Epochs are counted in
a log that the trials' processes append to, whatever becomes of their own files: an epoch that is
in it twice was trained twice. The time to recover is that from the kill to the next epoch of the
trial that was hit; where the driver died too, it is started again at once, with a new cluster
where the head died, so the starts of processes are in it and the time of a human is not.

    python -m benchmarks.faults                     all faults in both stages, about 12 minutes
    python -m benchmarks.faults --stage head --fault raylet

What a run does not measure is kept from the last one (benchmarks/results/faults.json).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from math import isfinite
from pathlib import Path

from benchmarks._report import RESULTS, publish, table
from benchmarks.faults.driver import Stage
from benchmarks.faults.nodes import Nodes, nodes
from benchmarks.faults.scenario import (
    Killer,
    Result,
    Search,
    kill_driver,
    kill_gcs,
    kill_head,
    kill_node,
    kill_raylet,
    kill_storage,
    kill_trial,
    strike,
    whole,
)
from benchmarks.faults.storage import StorageServer, storage_server
from gsfl_tune.run import RunDirectory

FAULTS: dict[str, str] = {
    "trial": "a trial's process",
    "raylet": "a raylet (a new node joins)",
    "node": "a node: raylet and trial's process at once (a new node joins)",
    "driver": "the driver (started again)",
    "head": "the head with everything, driver included (new cluster, started again)",
    "storage": "the storage server (back after 8 s)",
    "gcs": "the head under a driver elsewhere, which ends by itself (new cluster, started again)",
}
STAGES: tuple[Stage, ...] = ("head", "finetune")


def killers(fresh: Callable[[], Nodes], server: StorageServer) -> dict[str, Killer]:
    """What does it, by name."""
    return {
        "trial": kill_trial,
        "raylet": kill_raylet,
        "node": kill_node,
        "driver": kill_driver,
        "head": partial(kill_head, fresh=fresh),
        "storage": partial(kill_storage, server=server),
        "gcs": partial(kill_gcs, fresh=fresh),
    }


def overrides(fault: str, server: StorageServer, name: str) -> tuple[str, ...]:
    """Of the experiment that a fault hits: one trial at a time, kept where the fault is."""
    stored = (f"storage={server.url(name)}",) if fault == "storage" else ()
    return ("search.max_concurrent=1", *stored)


def measure(stage: Stage, faults: list[str], folder: Path) -> Iterator[Result]:
    """One stage, on as few clusters as the faults leave."""
    with ExitStack() as stack:
        server = stack.enter_context(storage_server(folder))

        def fresh() -> Nodes:
            return stack.enter_context(nodes(**server.environment))

        def of(fault: str) -> Search:
            run, more = RunDirectory(folder / fault), overrides(fault, server, f"{stage}-{fault}")
            return Search(cluster, run, folder / "cache", stage, more)

        cluster = fresh()
        reference = whole(of("whole"))
        for fault in faults:
            search = of(fault)
            try:
                yield strike(fault, search, killers(fresh, server)[fault], reference)
                cluster = search.nodes
            except RuntimeError as error:
                print(f"{fault}: {error}", file=sys.stderr, flush=True)
                search.stop()
                nothing: dict[str, int] = {}
                problem = str(error).splitlines()[0]
                yield Result(fault, stage, "", nothing, nothing, 0, float("nan"), [problem])
                cluster = fresh()


def page(results: list[Result]) -> str:
    """The table, and what is wrong if anything is."""
    rows = [
        [
            result.stage,
            FAULTS[result.fault],
            result.when,
            _states(result.before),
            _states(result.after),
            result.redone,
            f"{result.recovered:.1f} s" if isfinite(result.recovered) else "its process lived on",
            "yes" if not result.problems else "NO",
        ]
        for result in results
    ]
    header = ["stage", "killed with -9", "when", "trials before", "trials after"]
    text = table([*header, "redone epochs", "recovered after", "as undisturbed"], rows)
    problems = [
        f"- {result.stage}, {result.fault}: {problem}"
        for result in results
        for problem in result.problems
    ]
    legend = (
        "As undisturbed: the same trials with the same states, rung values and winner as a search "
        "without the fault; no finished trial trained again, none redone further back than its "
        "last rung, `trials.parquet` agrees with the study, nothing RUNNING. Rows that the "
        "command above does not measure are kept from earlier runs."
    )
    return "\n\n".join([text, legend, *(["\n".join(problems)] if problems else [])])


def _states(counts: dict[str, int]) -> str:
    names = ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")
    return ", ".join(f"{counts[name]} {name}" for name in names if name in counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=STAGES, help="one only")
    parser.add_argument("--fault", choices=list(FAULTS), action="append", help="these only")
    parser.add_argument("--quick", action="store_true", help="one fault, nothing saved")
    options = parser.parse_args()
    faults = options.fault or (["trial"] if options.quick else list(FAULTS))
    stages = [options.stage] if options.stage else STAGES[: 1 if options.quick else 2]
    file = RESULTS / "faults.json"
    known = {} if options.quick or not file.exists() else json.loads(file.read_text())
    for stage in stages:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            for result in measure(stage, faults, Path(folder)):
                print(result, file=sys.stderr, flush=True)
                known[f"{stage} {result.fault}"] = asdict(result)
                if not options.quick:
                    file.write_text(json.dumps(known, indent=1) + "\n")
    order = [f"{stage} {fault}" for stage in STAGES for fault in FAULTS]
    results = [Result(**known[key]) for key in order if key in known]
    publish("faults", "What survives kill -9", page(results), save=not options.quick)
    if any(result.problems for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
