"""Asks every node of a cluster whether a search can run there, before one begins."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gsfl_tune import plugins
from gsfl_tune.activity import activity
from gsfl_tune.cluster.doctor import probe
from gsfl_tune.cluster.doctor.findings import Finding, Node, compare
from gsfl_tune.cluster.doctor.meeting import meeting, of_driver
from gsfl_tune.cluster.session.slots import fit
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.run import gpus as gpus_of_machine
from gsfl_tune.run.storage import run_url

SECONDS = 120.0
# Directories appear late where a network file system remembers that they were not there.
_SEEN_SECONDS = 10.0
_CLOCK_SECONDS = 10.0


@dataclass(frozen=True)
class Question:
    """Holds what a search needs of every node.

    Attributes:
        run: The run directory; None leaves it out.
        storage: Path or URL where the run is kept; nodes need not see the run directory then.
        data: Files, folders and URLs that trials read.
        cache: Root of the nodes' caches.
        seconds: The longest that a node may take to answer.
        quick: Leave out what takes time, for a search on this machine alone.
    """

    run: Path | None = None
    storage: str | None = None
    data: Sequence[str] = ()
    cache: Path | None = None
    seconds: float = SECONDS
    quick: bool = False


@dataclass(frozen=True)
class Inspection:
    """Holds what the nodes answered.

    Attributes:
        nodes: One a node of the cluster, the driver's own first.
        findings: What must be mended, and what should be known; problems first.
    """

    nodes: list[Node]
    findings: list[Finding] = field(default_factory=list)

    @property
    def problems(self) -> list[Finding]:
        """Returns what must be mended."""
        return [finding for finding in self.findings if not finding.warning]

    @property
    def warnings(self) -> list[Finding]:
        """Returns what does not keep a search from running."""
        return [finding for finding in self.findings if finding.warning]

    def with_request(self, experiment: Experiment) -> Inspection:
        """Adds the finding that no node holds a trial of an experiment, if it is so."""
        search = experiment.defaults().search
        held = [{"CPU": node.cpus, "GPU": float(node.gpus)} for node in self.nodes]
        try:
            backbones = experiment.values("model.backbone")
            fit(search.resources, held, search.max_concurrent, backbones)
        except UserError as error:
            text, _, _ = str(error).partition("; for nodes that come")
            fix = "ask for less, or for another kind of node"
            grows = search.resources.wait > 0
            return replace(self, findings=[*self.findings, Finding("cluster", text, fix, grows)])
        return self

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for JSON; see ``docs/cluster.md``."""
        return {
            "good": not self.problems,
            "nodes": [node.to_json() for node in self.nodes],
            "findings": [finding.to_json() for finding in self.findings],
        }


def data_paths(experiment: Experiment) -> list[str]:
    """Lists files, folders and URLs that trials of an experiment read; none for embedded images."""
    data = experiment.defaults().data
    paths: list[str] = []
    if data.source != "typefaces" and data.path is not None:
        paths += [data.path] if isinstance(data.path, str) else data.path
        if data.download or data.source in plugins.plugins("source"):
            # The driver fetches what is missing, before any trial begins; and what a path is to
            # a source of a package, which may not be a file, only that knows.
            paths = [path for path in paths if os.path.exists(path)]
        paths += [data.root] if data.root is not None else []
    for leaf in (
        *("data.exclude", "data.class_text", "data.text_weights", "data.unlabelled"),
        *("data.synthetic", "data.augment.restorer", "model.weights", "model.weights_b"),
        *("model.groups.taxonomy", "training.teacher", "search.cost_matrix"),
        "data.split.together",
    ):
        # Loading has made the paths of files absolute; what is left are names.
        values = [each for value in experiment.values(leaf) for each in _texts(value)]
        paths += [value for value in values if value.startswith("/") or "://" in value]
    return list(dict.fromkeys(paths))


def _texts(value: Any) -> list[str]:
    """Returns the items of a list, or the one value, as text."""
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def stored_at(experiment: Experiment) -> str | None:
    """Returns where an experiment's storage keeps its run; None where it has none."""
    storage = experiment.defaults().storage
    return None if storage is None else run_url(storage, experiment.name)


def inspect_here(question: Question, resources: Mapping[str, float] | None = None) -> Inspection:
    """Asks this machine alone, without Ray.

    Args:
        question: What is needed.
        resources: What Ray has here (``CPU``, ``GPU``); default: all that there is.
    """
    with meeting(question.run, question.storage, question.seconds) as places:
        answer = probe.look(_ask(question, "here", places))
    if resources is None:
        resources = {"CPU": answer["cpus"], "GPU": len(answer.get("gpus") or ())}
    cpus, gpus = float(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    node = Node(answer["host"], "here", cpus=cpus, gpus=gpus, answer=answer, skew=0.0)
    return Inspection([node], [*of_driver(places), *compare([node], answer)])


def inspect_cluster(question: Question) -> Inspection:
    """Asks every node of the Ray that this process is connected to; a Ray of one node in here.

    Raises:
        EnvironmentProblem: When the driver itself cannot use the run directory.
    """
    import ray

    mine = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"]]
    alive.sort(key=lambda node: (node["NodeID"] != mine, node["NodeManagerAddress"]))
    if len(alive) == 1 and alive[0]["NodeID"] == mine:
        return inspect_here(question, alive[0]["Resources"])
    with meeting(question.run, question.storage, question.seconds) as places:
        nodes = _ask_all(question, _nodes(alive), places)
    still = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    # Spot machines come and go: one that left meanwhile is not a fault of the cluster.
    nodes = [node for node in nodes if node.answer is not None or node.id in still]
    driver = probe.look(_ask(replace(question, cache=None), "driver", {}))
    return Inspection(nodes, [*of_driver(places), *compare(nodes, driver)])


def refuse_unfit_nodes(
    experiment: Experiment, run: Path, cache: Path, warn: Callable[[str], None]
) -> None:
    """Refuses nodes that lack something; on a Ray of this machine alone it checks what is quick.

    Args:
        experiment: What is searched.
        run: The run directory.
        cache: Root of the nodes' caches.
        warn: Is told of what does not keep the search from running.

    Raises:
        EnvironmentProblem: With one line a problem, each names its node.
    """
    import ray

    alone = sum(node["Alive"] for node in ray.nodes()) == 1
    data = () if alone else data_paths(experiment)
    # A search has opened its storage by now; other nodes have not.
    stored = None if alone else stored_at(experiment)
    with activity("asking every node what a search needs of it"):
        inspection = inspect_cluster(Question(run, stored, data, cache, quick=alone))
    if inspection.problems:
        lines = [str(finding) for finding in inspection.problems]
        raise EnvironmentProblem("\n".join([*lines, "the same again: gsfl-tune doctor"]))
    for finding in inspection.warnings:
        warn(str(finding))


# --- asking -----------------------------------------------------------------------------------


def _nodes(alive: Sequence[Mapping[str, Any]]) -> list[Node]:
    addresses = Counter(node["NodeManagerAddress"] for node in alive)
    return [
        Node(
            name=address if addresses[address] == 1 else f"{address}/{node['NodeID'][:6]}",
            id=node["NodeID"],
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=int(node["Resources"].get("GPU", 0.0)),
        )
        for node in alive
        for address in (node["NodeManagerAddress"],)
    ]


def _ask_all(question: Question, nodes: list[Node], places: Mapping[str, Any]) -> list[Node]:
    with _by_value():
        flying = {
            _on(node.id, probe.look).remote(_ask(question, node.id, places)): node for node in nodes
        }
        answered = {node.id: node for node in _collect(flying, question.seconds)}
        found = [_timed(answered[node.id]) for node in nodes]
        return [_seen(node, places.get("run")) for node in found]


def _collect(flying: dict[Any, Node], seconds: float) -> Iterator[Node]:
    import ray

    deadline = time.monotonic() + seconds
    while flying:
        left = max(0.0, deadline - time.monotonic())
        ready, _ = ray.wait(list(flying), num_returns=1, timeout=left)
        if not ready:
            break
        node = flying.pop(ready[0])
        try:
            yield replace(node, answer=ray.get(ready[0]))
        except Exception as error:
            # Ray raises a task's own exception as a subclass of its class.
            lines = [line for line in str(error).splitlines() if line.strip()]
            yield replace(node, error=lines[-1].strip() if lines else type(error).__name__)
    for reference, node in flying.items():
        ray.cancel(reference, force=True)
        yield replace(node, error=f"did not answer in {seconds:g} s")


def _timed(node: Node) -> Node:
    """With the difference of its clock, bounded by the time that asking took."""
    import ray
    from ray.exceptions import RayError

    if node.answer is None:
        return node
    best: tuple[float, float] | None = None
    for _ in range(3):
        before = time.time()
        try:
            there = float(ray.get(_on(node.id, probe.now).remote(), timeout=_CLOCK_SECONDS))
        except RayError:
            break
        after = time.time()
        bound = (after - before) / 2
        if best is None or bound < best[1]:
            best = (there - (before + after) / 2, bound)
        if bound < 0.1:
            break
    return node if best is None else replace(node, skew=best[0], skew_bound=best[1])


def _seen(node: Node, folder: Mapping[str, Any] | None) -> Node:
    """Whether the driver sees what a node wrote."""
    if folder is None or not node.answer or not node.answer["run"]["shared"]:
        return node
    if node.answer["run"]["error"]:
        return node
    path = Path(folder["path"], f"{node.id}.seen")
    deadline = time.monotonic() + _SEEN_SECONDS
    while True:
        try:
            if path.read_text() == folder["token"] + node.id:
                return node
        except OSError:
            pass
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    run = node.answer["run"] | {"error": "the driver does not see what this node wrote"}
    return replace(node, answer={**node.answer, "run": run})


def _on(node: str, function: Any) -> Any:
    """A task that runs on one node or fails, whatever else runs there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return ray.remote(function).options(
        num_cpus=0, max_retries=0, scheduling_strategy=where, name=f"preflight:{node[:6]}"
    )


@contextmanager
def _by_value() -> Iterator[None]:
    """Sends the questions as code, to nodes that may lack this package or have an older one."""
    from ray import cloudpickle

    modules = (probe, gpus_of_machine)
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _ask(question: Question, node: str, places: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "node": node,
        "quick": question.quick,
        "packages": list(plugins.packages()),
        "cache": None if question.cache is None else str(question.cache),
        **places,
        "data": list(question.data),
    }
