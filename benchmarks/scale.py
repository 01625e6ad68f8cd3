"""Searches of 10,000 trials on 1 to 1,024 workers whose nodes die, on a simulated clock.

Nothing is trained: the recorded learning curves of `benchmarks.replay` say what training would
give, ASHA is the product's own, and so is TPE. Nodes of 8 workers die at rates of spot machines
(0, 1, 5 and 20 % an hour) and are replaced after 5 minutes; their trials start again elsewhere
10 s after the death (measured with Ray: 6 to 14 s) from their last checkpoint. Three ways to
save are compared: never, at rungs alone, and as the product does, at rungs and at the first
end of an epoch that is 20 s after the last time, with checkpoints that take 0.04 s (a disk) or
1.9 s (20 MB to an object store). The driver is a single server with one queue that takes what
`benchmarks/driver.py` measured for each result and each trial, and the process that proposes
takes what `benchmarks/suggest.py` measured: the plot shows where they cannot keep up.

Trials are drawn at random but for the rows that say TPE, which takes minutes for 10,000 trials
whose proposals are made as in the product, one ahead and from its bounded history. All searches
of a seed share their trials and the chance in them. Some ten minutes on two cores, most
of them for TPE; finished searches are kept in the working folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

# Before numpy is loaded: a process each, and small matrices.
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._report import publish
from benchmarks.replay.surrogate import Processes, Surrogate
from benchmarks.replay.tables import Curves
from benchmarks.simulation import report
from benchmarks.simulation.cluster import Cluster, Driver, Saving
from benchmarks.simulation.runs import Run, simulate_all

PLOT = Path(__file__).parents[1] / "docs" / "images" / "scale.png"
WORKERS = (1, 4, 16, 64, 256, 1024)
FAILURES = (0.0, 0.01, 0.05, 0.2)
EPOCHS = (0.1, 1.0, 10.0, 60.0)
DISK, STORE = 0.04, 1.9


def driver(workers: int, options: argparse.Namespace, *, proposes: bool = True) -> Driver:
    """The product's driver; TPE looks at every running trial."""
    proposal = options.proposal + options.proposal_running * workers if proposes else 0.0
    return Driver(options.result, options.trial, proposal)


def savings() -> list[Saving]:
    """Ways to save, and what a checkpoint costs."""
    found = [Saving("none")]
    for cost in (DISK, STORE):
        found += [Saving("rungs", cost), Saving("product", cost)]
    return found


def all_runs(options: argparse.Namespace) -> list[Run]:
    """Every search; those that take longest come first."""
    trials = options.trials
    found = []
    for workers in sorted(options.tpe, reverse=True):
        cluster = Cluster(workers, failures=0.05)
        found.append(
            Run("tpe", "tpe", cluster, 60.0, trials, 0, Saving(cost=DISK), driver(workers, options))
        )
    for workers in options.workers:
        cluster = Cluster(workers)
        for seconds in EPOCHS:
            one = Run("epochs", "random", cluster, seconds, trials, 0, Saving(cost=DISK))
            found += [one, replace(one, driver=driver(workers, options))]
        for rate in FAILURES:
            for saving in savings():
                for seed in range(options.seeds):
                    spot = Cluster(workers, failures=rate, replacement=options.replacement)
                    settings = (trials, seed, saving, driver(workers, options))
                    found.append(Run("deaths", "random", spot, 60.0, *settings))
        head = Run("head", "random", Cluster(workers, failures=0.2), 0.1, trials, 0)
        found.append(replace(head, driver=driver(workers, options)))
    return found


def open_surrogate(name: str, work: Path) -> tuple[Surrogate, tuple[float, float]]:
    """A recorded data set as something to search, with its best and its median value."""
    curves = Curves.load(name)
    path = work / f"{name}-{len(curves.index)}.npz"
    known = Processes.load(path) if path.exists() else None
    surrogate = Surrogate(name, curves, processes=known)
    if known is None:
        work.mkdir(parents=True, exist_ok=True)
        surrogate.processes.save(path)
    return surrogate, surrogate.best()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", default="omniglot", help="recorded data set")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--tpe", type=int, nargs="*", default=[16, 1024], help="workers with TPE")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--replacement", type=float, default=300.0, help="seconds")
    parser.add_argument("--result", type=float, default=0.006, help="driver's seconds a result")
    parser.add_argument("--trial", type=float, default=0.014, help="driver's seconds a trial")
    parser.add_argument("--proposal", type=float, default=0.019, help="TPE's seconds a proposal")
    parser.add_argument(
        "--proposal-running", type=float, default=22e-6, help="and for each running trial"
    )
    # The folder of the replay: the same fits.
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "gsfl-replay")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="a smoke run; nothing is written")
    options = parser.parse_args()
    if options.quick:
        options.data, options.trials, options.seeds = "typefaces", 300, 1
        options.workers, options.tpe = (1, 64), [16]
    surrogate, scale = open_surrogate(options.data, options.work)
    log = None if options.quick else options.work / f"scale-{options.data}.jsonl"
    rows = simulate_all(all_runs(options), surrogate, scale, log, options.processes)
    if not options.quick:
        report.plot(rows, PLOT)
    publish("scale", "Scale, simulated", report.page(rows, options), save=not options.quick)


if __name__ == "__main__":
    main()
