"""Starting or joining Ray, and how many trials fit at once."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from gsfl_tune.activity import activity
from gsfl_tune.cluster.placement import capacity, spread
from gsfl_tune.cluster.room import wait_for_room
from gsfl_tune.cluster.token import HINT, make_token
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.experiment.search_config import ResourcesConfig

# Trials share images and features by memory map, not through Ray.
_OBJECT_STORE_BYTES = 128 * 1024**2
# Ray counts in ten-thousandths, and nobody trains on less than a hundredth of a GPU.
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Slots:
    """What one trial occupies, and how many fit.

    Attributes:
        cpu: CPU cores a trial.
        gpu: GPUs a trial; a share of one below 1. As large as the number of trials allows, so that
            Ray cannot put several on one GPU while another idles.
        count: Trials at once.
        workers: Processes of a trial, one for each GPU where it has several.
        asked: The least GPUs that a trial can do with.
        nodes: Resources of the nodes that they were computed for.
    """

    cpu: float
    gpu: float
    count: int
    workers: int = 1
    asked: float = field(default=0.0, compare=False, repr=False)
    nodes: tuple[Mapping[str, float], ...] = field(default=(), compare=False, repr=False)

    @property
    def threads(self) -> int:
        """CPU threads of a process of a trial."""
        return max(1, int(self.cpu / self.workers))

    def at_most(self, count: int) -> Slots:
        """The same for no more than `count` at once, each with as much of a GPU as there is."""
        if not self.nodes or not 0 < self.asked < 1:
            return replace(self, count=min(self.count, count))
        gpu, fitting = spread(self.cpu, self.asked, self.nodes, count)
        return replace(self, gpu=gpu, count=fitting)


@contextmanager
def ray_session(
    address: str | None = None, *, cpus: int | None = None, gpus: int | None = None
) -> Iterator[None]:
    """Ray for the time of a run: joined at `address`, else started on this machine alone.

    A Ray that this process is connected to already is used and left running.

    Args:
        address: Of a cluster; default: ``RAY_ADDRESS``, else a local Ray bound to loopback.
        cpus: Cores of the local Ray; default all.
        gpus: GPUs of the local Ray; default all.

    Raises:
        UserError: When the cluster cannot be reached.
        EnvironmentProblem: When a local Ray does not start.
    """
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    words = "starting Ray on this machine" if where == "local" else f"joining Ray at {where}"
    with activity(words):
        started = start_ray(address, cpus=cpus, gpus=gpus)
    try:
        yield
    finally:
        if started:
            import ray

            with activity("ending Ray"):
                ray.shutdown()


def start_ray(
    address: str | None = None, *, cpus: int | None = None, gpus: int | None = None
) -> bool:
    """Connects this process to Ray, see `ray_session`.

    Returns:
        Whether it was not connected before.

    Raises:
        UserError: When the cluster cannot be reached.
        EnvironmentProblem: When a local Ray does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray warns of a change of its own defaults.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    import ray

    if ray.is_initialized():
        return False
    common: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address is None or address == "local":
        options = {"num_cpus": cpus, "num_gpus": gpus, **common}
        if not _started_locally(options, again=True):
            _started_locally(options, again=False)
        return True
    try:
        with _no_error_listener():
            ray.init(address=address, **common)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        line = _first_line(error)
        if isinstance(error, ray.exceptions.AuthenticationError):
            raise UserError(
                f"--address {address}: the cluster does not let this process in ({line}); {HINT}"
            ) from None
        raise UserError(
            f"--address {address}: no Ray cluster answers ({line}); is it up, and is the token "
            f"its own? {HINT}"
        ) from error
    return True


def _started_locally(options: Mapping[str, Any], *, again: bool) -> bool:
    """Starts Ray on this machine.

    Ray waits for its own processes for 30 s, however busy the machine is.

    Args:
        options: For ``ray.init``.
        again: Whether there will be another try if it takes longer.

    Returns:
        Whether it started; what it left behind is ended if not.

    Raises:
        EnvironmentProblem: When it did not, for another reason or for good.
    """
    import psutil
    import ray

    here = psutil.Process()
    before = set(here.children(recursive=True))
    try:
        make_token()
        with _loopback(), _no_error_listener():
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **options,
            )
    # Ray has no type of its own for processes that do not come up in time.
    except Exception as error:
        ray.shutdown()
        left = []
        for process in here.children(recursive=True):
            with suppress(psutil.Error):
                command = " ".join(process.cmdline())
                if process not in before and ("/ray/" in command or command.startswith("ray::")):
                    process.kill()
                    left.append(process)
        psutil.wait_procs(left, timeout=10)
        if again and "timed out" in str(error):
            return False
        raise EnvironmentProblem(
            f"Ray did not start on this machine: {_first_line(error)}"
        ) from error
    return True


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), repr(error))


@contextmanager
def _loopback() -> Iterator[None]:
    """Makes a local Ray listen on 127.0.0.1 only.

    Ray turns ``_node_ip_address="127.0.0.1"`` back into the address of the network card; it
    listens on loopback where it thinks that there are no clusters, as on a Mac.
    """
    from ray._private import ray_constants

    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    before = os.environ.get(name)
    enabled = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)
    os.environ[name] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = enabled
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _no_error_listener() -> Iterator[None]:
    """Keeps Ray from printing a paragraph into the live table whenever a worker dies.

    The search says it in a line of its own; Ray has no switch for it.
    """
    from ray._private import worker

    listener = getattr(worker, "listen_error_messages", None)
    worker.listen_error_messages = lambda *arguments: None
    try:
        yield
    finally:
        worker.listen_error_messages = listener


def slots(resources: ResourcesConfig, max_concurrent: int | None = None) -> Slots:
    """How many trials fit on the Ray that this process is connected to.

    Where ``resources.wait`` allows it, a cluster that has no room yet is given time to grow.

    Args:
        resources: What a trial asks for.
        max_concurrent: Upper limit. With ``resources.wait`` it is also the number: trials that do
            not fit yet wait for nodes that come later.

    Raises:
        UserError: When no node can hold one trial; the message says what the nodes have.
    """
    if resources.wait > 0:
        refuse_impossible(resources)
        gpu = _gpus(resources, _alive())
        wait_for_room(float(resources.cpu), gpu, max_concurrent or 1, resources.wait)
    found = fit(resources, _alive(), max_concurrent)
    if resources.wait > 0 and max_concurrent:
        return replace(found, count=max_concurrent, nodes=())
    return found


def fit(
    resources: ResourcesConfig,
    nodes: Sequence[Mapping[str, float]],
    max_concurrent: int | None = None,
) -> Slots:
    """How many trials fit on nodes.

    Args:
        resources: What a trial asks for.
        nodes: Resources of each node as Ray has them (``CPU``, ``GPU``).
        max_concurrent: Upper limit.

    Raises:
        UserError: When no node can hold one trial, more than one GPU is not a whole number, or
            the keys contradict each other.
    """
    refuse_impossible(resources)
    cpu, gpu = float(resources.cpu), _gpus(resources, nodes)
    workers = _workers(resources, gpu)
    count = sum(capacity(cpu, gpu, node) for node in nodes)
    if count == 0:
        raise UserError(
            f"search.resources: a trial asks for {_amount(cpu, gpu)}; found no node that holds "
            f"one, the cluster has {describe(nodes)}"
            + ("" if resources.wait > 0 else "; for nodes that come later, search.resources.wait")
        )
    known = tuple(dict(node) for node in nodes)
    whole = Slots(cpu, gpu, count, workers, asked=gpu, nodes=known)
    return whole.at_most(max_concurrent or count)


def _gpus(resources: ResourcesConfig, nodes: Sequence[Mapping[str, float]]) -> float:
    several = resources.gpus_per_trial
    if several is not None:
        if resources.gpu not in ("auto", several):
            raise UserError(
                f"search.resources.gpu: found {resources.gpu:g} beside gpus_per_trial {several}, "
                "allowed: one of the two"
            )
        return float(several)
    if resources.gpu == "auto":
        return 1.0 if any(node.get("GPU", 0) > 0 for node in nodes) else 0.0
    return float(resources.gpu)


def _workers(resources: ResourcesConfig, gpu: float) -> int:
    wanted = resources.workers_per_trial
    if gpu == 0:
        return wanted or 1
    workers = max(1, int(gpu))
    if wanted not in (None, workers):
        raise UserError(
            f"search.resources.workers_per_trial: found {wanted} with {gpu:g} GPU"
            f"{'s' if gpu != 1 else ''} a trial, allowed: {workers}, one process for each GPU "
            "(search.resources.gpus_per_trial)"
        )
    return workers


def refuse_impossible(resources: ResourcesConfig) -> None:
    """Refuses what no cluster can give.

    Raises:
        UserError: When more than one GPU is not a whole number, or a share is next to nothing.
    """
    if resources.gpu == "auto":
        return
    gpu = float(resources.gpu)
    if (gpu > 1 and gpu != int(gpu)) or 0 < gpu < _LEAST_SHARE:
        raise UserError(
            f"search.resources.gpu: found {gpu:g}, allowed: {_LEAST_SHARE:g} to 1 (several trials "
            "share a GPU), a whole number, or 0"
        )


def describe(nodes: Sequence[Mapping[str, float]]) -> str:
    """What nodes have, in words: ``2 nodes of 8 CPU cores and 1 GPU``; largest first."""
    if not nodes:
        return "nothing"
    kinds = Counter((node.get("GPU", 0.0), node.get("CPU", 0.0)) for node in nodes)
    return ", ".join(
        f"{count} node{'s' if count > 1 else ''} of {_amount(cpu, gpu)}"
        for (gpu, cpu), count in sorted(kinds.items(), reverse=True)
    )


def _alive() -> list[Mapping[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _amount(cpu: float, gpu: float) -> str:
    text = f"{cpu:g} CPU core{'s' if cpu != 1 else ''}"
    return f"{text} and {gpu:g} GPU{'s' if gpu != 1 else ''}" if gpu else f"{text} and no GPU"
