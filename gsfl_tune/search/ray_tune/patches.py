"""Changes to Ray Tune that a search needs: log output, snapshots, memory monitor and secrets."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.air.execution._internal import actor_manager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import class_cache, tune_controller
from ray.tune.execution.tune_controller import TuneController

# Ray's defaults write files and lines for users of Ray; a run has its own.
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": str(10**9),
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": str(10**9),
    "RAY_AIR_NEW_OUTPUT": "0",
}


@contextmanager
def light_snapshots() -> Iterator[None]:
    """Keeps trials out of Ray's snapshots, which are never read. The last one has all of them.

    Ray requires a snapshot at its end and has no option for its content.
    """
    name = "_get_trial_checkpoints"
    before = getattr(TuneController, name, None)
    if before is None:  # another version of Ray
        yield
        return
    setattr(TuneController, name, lambda self: {})
    try:
        yield
    finally:
        setattr(TuneController, name, before)


@contextmanager
def memory_monitor() -> Iterator[None]:
    """Lets a search survive when Ray's memory monitor ends processes of trials.

    Tune does not know that error's class, takes it for an internal fault and gives up. The patch
    presents it as the death of a process.
    """
    modules: tuple[Any, ...] = (actor_manager, tune_controller)
    for module in modules:
        module.RayActorError = (RayActorError, OutOfMemoryError)
    try:
        yield
    finally:
        for module in modules:
            module.RayActorError = RayActorError


@contextmanager
def own_credentials() -> Iterator[None]:
    """Leaves nodes their own credentials.

    Tune passes the driver's AWS keys to trials. They replace part of a node's own keys, and anyone
    who sees the dashboard can read them.
    """
    before = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in before if not name.startswith("AWS_")}
    try:
        yield
    finally:
        class_cache.ENV_VARS_TO_PROPAGATE = before


@contextmanager
def quiet() -> Iterator[None]:
    """Runs Ray without its log output, and restores the process afterwards."""
    before = {key: os.environ.get(key) for key in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    loggers = [logging.getLogger(name) for name in ("ray", "ray.tune", "ray.train")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
