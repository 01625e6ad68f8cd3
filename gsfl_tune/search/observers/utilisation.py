"""The utilisation of slots and GPUs during a run, measured and recorded."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gsfl_tune.run import RunDirectory, WorkerLog
from gsfl_tune.run.gpus import number, read_gpus
from gsfl_tune.run.utilisation import read_sessions, write_sessions
from gsfl_tune.search.observers.base import Watcher

if TYPE_CHECKING:
    from gsfl_tune.search.study.study import Study

SECONDS_BETWEEN_SAMPLES = 10.0
_SECONDS_BETWEEN_WRITES = 60.0


class GpuSampler:
    """Reads a node's GPUs in an actor: a new process per sample would cost more."""

    def sample(self) -> list[dict[str, str]] | None:
        """Returns one sample, see `gsfl_tune.run.gpus.read_gpus`."""
        return read_gpus()


@dataclass
class _Gpu:
    busy: float = 0.0
    samples: int = 0
    memory: int | None = None
    # Disjoint, ordered intervals with a trial on it, as (begin, end).
    stretches: list[tuple[float, float]] = field(default_factory=list)

    @property
    def occupied(self) -> float:
        return sum(end - begin for begin, end in self.stretches)

    def take(self, begin: float, end: float) -> None:
        """Adds an interval and joins it with those that it touches."""
        while self.stretches and self.stretches[-1][1] >= begin:
            begin = min(begin, self.stretches.pop()[0])
        self.stretches.append((begin, end))


@dataclass
class _Node:
    name: str
    count: int
    seconds: float = 0.0
    gpus: dict[str, _Gpu] = field(default_factory=dict)
    sampler: Any = None
    asked: Any = None
    blind: bool = False

    def gpu(self, name: str) -> _Gpu:
        return self.gpus.setdefault(name, _Gpu())

    def all_gpus(self) -> dict[str, _Gpu]:
        """Returns the GPUs that trials used, padded to the number of GPUs of the node."""
        found = {name: gpu for name, gpu in self.gpus.items() if gpu.stretches}
        others = {name: gpu for name, gpu in self.gpus.items() if name not in found}
        numbered = (str(index) for index in range(self.count))
        for name in [*others, *numbered]:
            if len(found) < self.count:
                found.setdefault(name, others.get(name) or _Gpu())
        return found


class Utilisation(Watcher):
    """Measures the busy shares of slots and GPUs, for one driver.

    Trials report where they ran and how long, which gives the share of time that a GPU was
    occupied. Its load comes from its driver: an actor on every node with GPUs reads it now and
    then. Nodes without ``nvidia-smi`` are skipped.

    Args:
        run: Gets ``utilisation.json``; the entry of an earlier driver is kept.
        slots: Number of parallel trials.
        sample_seconds: Seconds between samples.
    """

    def __init__(
        self,
        run: RunDirectory,
        slots: int,
        *,
        sample_seconds: float = SECONDS_BETWEEN_SAMPLES,
    ) -> None:
        self._run = run
        self._all_slots = slots
        self._slots = slots
        self._before = read_sessions(run)
        self._log = WorkerLog(run)
        self._study_name: str | None = None
        self._sample_seconds = sample_seconds
        self._nodes: dict[str, _Node] = {}
        self._gone: list[_Node] = []
        self._trial_seconds = 0.0
        self._slot_seconds = 0.0
        self._seconds = 0.0
        self._counted: float | None = None
        self._sampled = 0.0
        self._written = 0.0

    # --- events of a watcher --------------------------------------------------------------

    def begin(self, study: Study, budget: int | None, slots: int) -> None:
        """Starts the clock of a study."""
        self._study_name = study.name
        self._start(slots)

    def jobs_begin(self, title: str, total: int, done: int) -> None:
        """Starts the clock of retrains."""
        self._start(min(self._all_slots, total - done))

    def occupied(self, result: Mapping[str, Any], seconds: float) -> None:
        """Registers that a trial or retrain has used its slot for so long, until now."""
        self._trial_seconds += seconds
        if "place_node" not in result:
            return
        identity, gpus = str(result.get("place_node")), str(result.get("place_gpus") or "")
        if identity not in self._nodes:
            with suppress(RayError, RuntimeError, OSError):
                self._look_at_nodes()
        node = self._nodes.get(identity)
        self._note(result, seconds, identity[:6] if node is None else node.name)
        if node is None or not gpus:
            return
        now = time.monotonic()
        for gpu in gpus.split(","):
            node.gpu(gpu).take(now - seconds, now)

    def tick(self) -> None:
        """Counts time, collects finished samples, requests the next ones, writes."""
        now = self._count()
        # Other code reports a head that does not answer; without GPUs nothing is sampled.
        with suppress(RayError, RuntimeError, OSError):
            if now - self._sampled >= self._sample_seconds and self._has_gpus:
                self._sampled = now
                self._look_at_nodes()
                self._ask()
            self._collect()
        if now - self._written >= _SECONDS_BETWEEN_WRITES:
            self._write()

    def finish(self, *, interrupted: bool) -> None:
        """Stops the clock and writes."""
        self._stop()

    def jobs_finish(self, *, interrupted: bool) -> None:
        """Stops the clock and writes."""
        self._stop()

    @property
    def _has_gpus(self) -> bool:
        return any(node.count for node in self._nodes.values())

    def _note(self, result: Mapping[str, Any], seconds: float, node: str) -> None:
        end = time.time()
        what = (
            {"job": result["job"]}
            if "job" in result
            else {
                "study": self._study_name,
                "trial": result.get("trial_number"),
                "rung": result.get("rung"),
                "epoch": result.get("epoch"),
            }
        )
        where = {
            "node": node,
            "worker": result.get("place_worker"),
            "gpus": str(result.get("place_gpus") or ""),
        }
        times = {"begin": round(end - seconds, 3), "end": round(end, 3)}
        self._log.append(what | where | times)

    # --- time -----------------------------------------------------------------------------

    def _start(self, slots: int) -> None:
        self._slots = slots
        self._counted = self._written = time.monotonic()
        self._look_at_nodes()

    def _count(self) -> float:
        now = time.monotonic()
        if self._counted is None:
            return now
        passed = now - self._counted
        self._counted = now
        self._seconds += passed
        self._slot_seconds += passed * self._slots
        for node in self._nodes.values():
            node.seconds += passed
        return now

    def _stop(self) -> None:
        self._count()
        self._counted = None
        for node in self._nodes.values():
            if node.sampler is not None:
                with suppress(RayError):
                    ray.kill(node.sampler)
            node.sampler = node.asked = None
        self._write()

    # --- samples --------------------------------------------------------------------------

    def _look_at_nodes(self) -> None:
        alive = [node for node in ray.nodes() if node["Alive"]]
        addresses = [node["NodeManagerAddress"] for node in alive]
        for node in alive:
            address, identity = node["NodeManagerAddress"], node["NodeID"]
            alone = addresses.count(address) == 1
            name = address if alone else f"{address}/{identity[:6]}"
            count = int(node["Resources"].get("GPU", 0))
            self._nodes.setdefault(identity, _Node(name, count))
        here = {node["NodeID"] for node in alive}
        for identity in set(self._nodes) - here:
            # Its idle time ends here; its measurements stay.
            self._gone.append(self._nodes.pop(identity))

    def _ask(self) -> None:
        for identity, node in self._nodes.items():
            if node.count == 0 or node.blind or node.asked is not None:
                continue
            if node.sampler is None:
                where = NodeAffinitySchedulingStrategy(node_id=identity, soft=False)
                actor = ray.remote(GpuSampler).options(
                    num_cpus=0, max_restarts=0, scheduling_strategy=where
                )
                node.sampler = actor.remote()
            node.asked = node.sampler.sample.remote()

    def _collect(self) -> None:
        asked = {node.asked: node for node in self._nodes.values() if node.asked is not None}
        if not asked:
            return
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0)
        for reference in ready:
            node = asked[reference]
            node.asked = None
            try:
                rows = ray.get(reference)
            except RayError:
                # It died, alone or with its node; a live node gets a new one.
                node.sampler = None
                continue
            if rows is None:
                node.blind = True
                ray.kill(node.sampler)
                node.sampler = None
            for row in rows or ():
                _add(node, row)

    # --- the file -------------------------------------------------------------------------

    def _write(self) -> None:
        self._written = time.monotonic()
        session = {
            "seconds": round(self._seconds, 2),
            "slot_seconds": round(self._slot_seconds, 2),
            "trial_seconds": round(self._trial_seconds, 2),
            "gpus": [
                {
                    "node": node.name,
                    "gpu": name,
                    "seconds": round(node.seconds, 2),
                    "occupied": round(min(gpu.occupied, node.seconds), 2),
                    "samples": gpu.samples,
                    "busy": round(gpu.busy, 4),
                    "memory": gpu.memory,
                }
                for node in [*self._gone, *self._nodes.values()]
                for name, gpu in sorted(node.all_gpus().items())
            ],
        }
        # Measurements must not stop a run: other code reports a full disk.
        with suppress(OSError):
            write_sessions(self._run, [*self._before, session])


def _add(node: _Node, row: Mapping[str, str]) -> None:
    """Adds one sample of one GPU; trials name it by its index or by its id."""
    known = next((name for name in node.gpus if row["uuid"].startswith(name)), row["index"])
    busy, memory = number(row["utilization.gpu"]), number(row["memory.used"])
    gpu = node.gpu(known)
    if busy is not None:
        gpu.samples += 1
        gpu.busy += busy / 100
    if memory is not None:
        gpu.memory = max(gpu.memory or 0, int(memory * 1024**2))
