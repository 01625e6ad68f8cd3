"""Starting or joining Ray, and how many trials fit at once."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gsfl_tune.experiment.config import ResourcesConfig
from gsfl_tune.experiment.errors import UserError

# Trials share images and features by memory map, not through Ray.
_OBJECT_STORE_BYTES = 128 * 1024**2
_EPSILON = 1e-6


@dataclass(frozen=True)
class Slots:
    """What one trial occupies, and how many fit.

    Attributes:
        cpu: CPU cores a trial.
        gpu: GPUs a trial; a share of one below 1.
        count: Trials at once.
    """

    cpu: float
    gpu: float
    count: int

    @property
    def threads(self) -> int:
        """CPU threads of a trial."""
        return max(1, int(self.cpu))


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
    """
    started = start_ray(address, cpus=cpus, gpus=gpus)
    try:
        yield
    finally:
        if started:
            import ray

            ray.shutdown()


def start_ray(
    address: str | None = None, *, cpus: int | None = None, gpus: int | None = None
) -> bool:
    """Connects this process to Ray, see `ray_session`.

    Returns:
        Whether it was not connected before.

    Raises:
        UserError: When the cluster cannot be reached.
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
        with _loopback(), _no_error_listener():
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **common,
            )
        return True
    try:
        with _no_error_listener():
            ray.init(address=address, **common)
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = next((line for line in str(error).splitlines() if line.strip()), str(error))
        raise UserError(f"--address {address}: no Ray cluster answers ({line})") from error
    return True


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

    Raises:
        UserError: When no node can hold one trial; the message says what the nodes have.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return fit(resources, nodes, max_concurrent)


def fit(
    resources: ResourcesConfig,
    nodes: list[Mapping[str, float]],
    max_concurrent: int | None = None,
) -> Slots:
    """How many trials fit on nodes.

    Args:
        resources: What a trial asks for.
        nodes: Resources of each node as Ray has them (``CPU``, ``GPU``).
        max_concurrent: Upper limit.

    Raises:
        UserError: When no node can hold one trial, or more than one GPU is not a whole number.
    """
    cpu = float(resources.cpu)
    if resources.gpu == "auto":
        gpu = 1.0 if any(node.get("GPU", 0) > 0 for node in nodes) else 0.0
    else:
        gpu = float(resources.gpu)
    if gpu > 1 and gpu != int(gpu):
        raise UserError(
            f"search.resources.gpu: found {gpu:g}, allowed: below 1 (several trials share a GPU) "
            "or a whole number"
        )
    count = sum(_on_node(cpu, gpu, node) for node in nodes)
    if count == 0:
        raise UserError(
            f"search.resources: a trial asks for {_amount(cpu, gpu)}, "
            f"the largest node has {_largest(nodes)}; found no node that holds one"
        )
    return Slots(cpu, gpu, min(count, max_concurrent or count))


def _on_node(cpu: float, gpu: float, node: Mapping[str, float]) -> int:
    by_cpu = math.floor(node.get("CPU", 0.0) / cpu + _EPSILON)
    if gpu == 0:
        return by_cpu
    whole = node.get("GPU", 0.0)
    if gpu < 1:
        # Shares of one GPU: what is left of each is lost.
        by_gpu = int(whole) * math.floor(1 / gpu + _EPSILON)
    else:
        by_gpu = math.floor(whole / gpu + _EPSILON)
    return min(by_cpu, by_gpu)


def _largest(nodes: list[Mapping[str, float]]) -> str:
    if not nodes:
        return "nothing"
    best = max(nodes, key=lambda node: (node.get("GPU", 0.0), node.get("CPU", 0.0)))
    return _amount(best.get("CPU", 0.0), best.get("GPU", 0.0))


def _amount(cpu: float, gpu: float) -> str:
    text = f"{cpu:g} CPU core{'s' if cpu != 1 else ''}"
    return f"{text} and {gpu:g} GPU{'s' if gpu != 1 else ''}" if gpu else f"{text} and no GPU"
