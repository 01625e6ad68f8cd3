"""Starts Ray on this machine, or joins a cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from gsfl_tune.activity import activity
from gsfl_tune.cluster.token import HINT, make_token
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError, first_line

# Trials share images and features by memory map, not through Ray.
_OBJECT_STORE_BYTES = 128 * 1024**2


@contextmanager
def ray_session(
    address: str | None = None, *, cpus: int | None = None, gpus: int | None = None
) -> Iterator[None]:
    """Holds Ray for the time of a run: joined at `address`, else started on this machine alone.

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
        line = first_line(error)
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
            f"Ray did not start on this machine: {first_line(error)}"
        ) from error
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
