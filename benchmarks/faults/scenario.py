"""One search with one fault: what is killed, and what is there before and after."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas
import psutil
from optuna.trial import FrozenTrial

from benchmarks.faults.driver import Stage, experiment, trained_log
from benchmarks.faults.nodes import ROOT, Nodes, kill
from benchmarks.faults.storage import StorageServer
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.search.ray_tune.runner import largest_timeline
from gsfl_tune.search.study.journal import read_studies

FINISHED = {"COMPLETE", "PRUNED", "FAIL"}
# Long enough for a trial to come to a rung, which it may not report until it is stored.
AWAY_SECONDS = 8.0
Killer = Callable[["Search", dict[str, Any]], None]


@dataclass
class Search:
    """A search whose driver may be started again and again.

    Args:
        nodes: The cluster.
        run: The run directory.
        cache: Root of the caches.
        stage: Which of the two experiments.
        overrides: Of the experiment.
    """

    nodes: Nodes
    run: RunDirectory
    cache: Path
    stage: Stage
    overrides: tuple[str, ...] = ()
    output: list[Path] = field(default_factory=list)

    def start(self) -> None:
        """Starts a driver."""
        self.run.path.parent.mkdir(parents=True, exist_ok=True)
        path = self.run.path.with_name(f"{self.run.path.name}.{len(self.output)}.txt")
        self.output.append(path)
        with path.open("w") as file:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.faults.driver", str(self.run.path)),
                    *(str(self.cache), self.stage, *self.overrides),
                ],
                env=self.nodes.environment,
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self, seconds: float = 400) -> int:
        """Waits for the driver's exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            raise RuntimeError(f"the driver did not end in {seconds} s:\n{self.text()}") from None

    def stop(self) -> None:
        """Kills the driver."""
        kill(self.process.pid)
        self.process.wait()

    def text(self) -> str:
        """What the last driver printed."""
        return self.output[-1].read_text(errors="replace")

    def wait(self, ready: Callable[[], bool], seconds: float = 300) -> None:
        """Waits for something to happen while the driver runs."""
        deadline = time.monotonic() + seconds
        while not ready():
            code = self.process.poll()
            if code is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it did not happen (driver: {code}):\n{self.text()}")
            time.sleep(0.05)

    # --- what is on disk ------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        """The study's trials, as anybody may read them."""
        return read_studies(self.run.journal).get("search", [])

    def finished(self) -> dict[int, tuple[str, float | None]]:
        """State and value of the trials that are final."""
        return {
            trial.number: (trial.state.name, trial.value)
            for trial in self.trials()
            if trial.state.name in FINISHED
        }

    def trained(self) -> list[dict[str, Any]]:
        """Every epoch that any process trained, in order."""
        path = trained_log(self.run.path)
        if not path.exists():
            return []
        lines = path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    @cached_property
    def rungs(self) -> list[int]:
        """Epochs of the rungs, the same for all trials of these spaces."""
        searched = experiment(self.stage, *self.overrides)
        scheduler = searched.defaults().search.scheduler
        options = {"grace": scheduler.grace, "reduction": scheduler.reduction}
        largest = largest_timeline(searched)
        return [rung.epoch for rung in largest.rungs(largest, **options)]

    # --- the moment -----------------------------------------------------------------------

    def hit(self, done: int = 2, beyond: int = 2) -> dict[str, Any]:
        """Waits until some trials are done and another is well between two rungs.

        Returns:
            Its newest line in the log: trial, epoch, pid, node.
        """
        found: list[dict[str, Any]] = []

        def ready() -> bool:
            lines = self.trained()
            if not lines:
                return False
            trials = self.trials()
            finished = sum(trial.state.name in FINISHED for trial in trials)
            last, trial = lines[-1], trials[lines[-1]["trial"]]
            past = last["epoch"] - max((e for e in self.rungs if e <= last["epoch"]), default=0)
            in_stage = last["stage"] == self.stage
            if trial.state.name == "RUNNING" and finished >= done and past >= beyond and in_stage:
                found[:] = [last]
            return bool(found)

        self.wait(ready)
        return found[0]


@dataclass(frozen=True)
class Result:
    """What a fault did.

    Attributes:
        fault: What was killed.
        stage: In the middle of which stage.
        when: Trials that were done, and the epoch of the one that was hit.
        before: Trials by state at the kill.
        after: Trials by state at the end.
        redone: Epochs that were trained more than once, over all trials.
        recovered: Seconds from the kill to the next epoch of the trial that was hit; NaN where its
            process lived on.
        problems: What is not as if nothing had happened; empty if all is well.
    """

    fault: str
    stage: Stage
    when: str
    before: dict[str, int]
    after: dict[str, int]
    redone: int
    recovered: float
    problems: list[str]


def states(trials: list[FrozenTrial]) -> list[Any]:
    """What must not depend on faults: states, values, rungs."""
    return [
        [trial.number, trial.state.name, trial.value, dict(trial.intermediate_values)]
        for trial in trials
    ]


def whole(search: Search) -> list[FrozenTrial]:
    """An undisturbed search to its end, to compare with."""
    search.start()
    code = search.end()
    if code != 0:
        raise RuntimeError(f"the undisturbed search ended with {code}:\n{search.text()}")
    return search.trials()


def strike(
    fault: str, search: Search, killer: Killer, reference: list[FrozenTrial] | None
) -> Result:
    """Kills something in the middle of a search, and lets it come to its end.

    Args:
        fault: Its name.
        search: The search, not yet started.
        killer: Kills; where the driver is gone afterwards, starts it again.
        reference: Trials of the same search without the fault, with one worker.
    """
    search.start()
    victim = search.hit()
    finished = search.finished()
    before = counts(search.trials())
    reported = search.trials()[victim["trial"]].last_step
    rung = search.rungs[reported] if reported is not None else 0
    killed = time.time()
    killer(search, victim)
    code = search.end()
    log = search.trained()
    again = [
        line for line in log if line["trial"] == victim["trial"] and line["time"] > killed + 0.001
    ]
    later = [line for line in again if line["pid"] != victim["pid"]]
    problems = disagreements(search, reference)
    if code != 0:
        problems.append(f"exit code {code}")
    problems += [
        f"trial {number} was final and is {search.finished().get(number)}"
        for number, known in finished.items()
        if search.finished().get(number) != known
    ]
    problems += [
        f"trial {line['trial']} was final and trained again"
        for line in log
        if line["time"] > killed and line["trial"] in finished
    ]
    if later and later[0]["epoch"] <= rung:
        problems.append(f"redone from epoch {later[0]['epoch']}, the last rung was {rung}")
    if not again:
        problems.append("the trial that was hit was not continued")
    return Result(
        fault,
        search.stage,
        f"{len(finished)} done, trial {victim['trial']} after epoch {victim['epoch']}",
        before,
        counts(search.trials()),
        redone(log),
        later[0]["time"] - killed if later else float("nan"),
        problems,
    )


def counts(trials: list[FrozenTrial]) -> dict[str, int]:
    """Trials by state."""
    found: dict[str, int] = {}
    for trial in trials:
        found[trial.state.name] = found.get(trial.state.name, 0) + 1
    return found


def redone(log: list[dict[str, Any]]) -> int:
    """Epochs that were trained again."""
    return len(log) - len({(line["trial"], line["epoch"]) for line in log})


def disagreements(search: Search, reference: list[FrozenTrial] | None = None) -> list[str]:
    """What is wrong with a run that has come to its end; empty if nothing is."""
    trials = search.trials()
    searched = experiment(search.stage, *search.overrides)
    budget = searched.defaults().search.trials
    problems = []
    if len(trials) != budget:
        problems.append(f"{len(trials)} trials, {budget} were asked for")
    table = pandas.read_parquet(search.run.trials_parquet).set_index("number")
    if sorted(table.index) != [trial.number for trial in trials]:
        problems.append(f"trials.parquet has {sorted(table.index)}")
        return problems
    for trial in trials:
        state = trial.state.name
        row = table.loc[trial.number]
        log = EpochLog(search.run.trial("search", trial.number) / "epochs.jsonl").read()
        epochs = [record["epoch"] for record in log]
        rungs = search.rungs
        if state not in ("COMPLETE", "PRUNED"):
            problems.append(f"trial {trial.number} is {state}: {trial.user_attrs.get('reason')}")
            continue
        if row["state"] != state or row["epochs"] != len(epochs):
            problems.append(f"trials.parquet says {row['state']}, {row['epochs']} epochs")
        if state == "COMPLETE" and row["value"] != trial.value:
            problems.append(f"trials.parquet has value {row['value']} for {trial.value}")
        if epochs != list(range(1, rungs[trial.last_step or 0] + 1)):
            problems.append(f"trial {trial.number} has epochs {epochs} in its log")
            continue
        values = {k: log[rungs[k] - 1]["validation/nll"] for k in trial.intermediate_values}
        if values != trial.intermediate_values or list(values) != list(range(len(values))):
            problems.append(f"trial {trial.number} has rungs {trial.intermediate_values}")
    if list(search.run.path.rglob(".ray")):
        problems.append("Ray's files were left")
    if reference is not None and states(trials) != states(reference):
        problems.append(f"{states(trials)} and undisturbed {states(reference)}")
    return problems


# --- what is killed -----------------------------------------------------------------------


def kill_trial(search: Search, victim: dict[str, Any]) -> None:
    """The process that trains."""
    kill(victim["pid"])


def kill_raylet(search: Search, victim: dict[str, Any]) -> None:
    """The raylet of the node that the trial is on; a new node comes, as on spot machines."""
    kill(search.nodes.raylets[victim["node"]])
    search.nodes.add()


def kill_node(search: Search, victim: dict[str, Any]) -> None:
    """A node with all that runs on it, as a spot machine that is taken away; a new one comes."""
    kill(search.nodes.raylets[victim["node"]])
    kill(victim["pid"])
    search.nodes.add()


def kill_driver(search: Search, victim: dict[str, Any]) -> None:
    """The driver; it is started again at once."""
    search.stop()
    search.start()


def kill_head(search: Search, victim: dict[str, Any], fresh: Callable[[], Nodes]) -> None:
    """Everything on the head, driver included; another cluster goes on.

    The worker nodes of the first one live on for a while, and their trial with them.
    """
    search.nodes.kill_head()
    search.stop()
    search.nodes = fresh()
    search.start()


def kill_gcs(search: Search, victim: dict[str, Any], fresh: Callable[[], Nodes]) -> None:
    """The head's control service, under a driver on another machine that has to notice."""
    kill(search.nodes.gcs)
    code = search.end()
    if code != 3 or "--resume" not in search.text() or "Traceback" in search.text():
        raise RuntimeError(f"the driver ended with {code}:\n{search.text()}")
    search.nodes = fresh()
    search.start()


def kill_storage(search: Search, victim: dict[str, Any], server: StorageServer) -> None:
    """The server that the run is kept on; it comes back after a while."""
    server.kill()
    time.sleep(AWAY_SECONDS)
    server.revive()


def alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
