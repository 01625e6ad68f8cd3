"""Patches that save unnecessary work of Ray Tune.

They replace internal methods of Ray. If another version of Ray lacks a method, its patch is left
out: the search is then slower but otherwise the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ray.tune import registry
from ray.tune.execution.tune_controller import TuneController

# Seconds that a trial waits for its own worker process before it takes another trial's. If its
# process is already starting by then, it waits for that.
PATIENCE = 2.0

Method = Callable[..., Any]


@contextmanager
def lean_ray() -> Iterator[None]:
    """Applies all patches."""
    with ExitStack() as stack:
        for owner, name, replace in (
            (TuneController, "_maybe_reuse_cached_actor", _patient_reuse),
            (getattr(registry, "_Registry", None), "contains", _known_class),
            (getattr(registry, "_Registry", None), "get", _one_class),
        ):
            before = getattr(owner, name, None)
            if before is not None:
                setattr(owner, name, replace(before))
                stack.callback(setattr, owner, name, before)
        yield


def _patient_reuse(before: Method) -> Method:
    """Lets worker processes finish their start.

    Ray gives a free worker process to a trial that waits for its own process to start, and then
    ends that one. Where trials take less time than a process start (some seconds, for torch), a
    second process never starts, and each trial costs a placement group that is made and discarded.
    With the patch the free process takes a new trial. A trial that waits for resources, as after
    the loss of a node, still gets the first free process.
    """
    asked: dict[Any, float] = {}

    def reuse(self: Any, trial: Any) -> bool:
        own = self._trial_to_actor.get(trial)
        if own is not None and trial not in self._resetting_trials:
            now = time.monotonic()
            waiting = now - asked.setdefault(own.actor_id, now)
            if waiting < PATIENCE or self._actor_manager.is_actor_started(own):
                return False
        return bool(before(self, trial))

    return reuse


def _known_class(before: Method) -> Method:
    """Asks Ray's head only once whether it has the trainable, not several times per trial."""
    known: set[tuple[str, str]] = set()

    def contains(self: Any, category: str, key: str) -> bool:
        if (category, key) not in known and before(self, category, key):
            known.add((category, key))
        return (category, key) in known

    return contains


def _one_class(before: Method) -> Method:
    """Fetches the trainable once; Ray would unpickle and export it again for every trial."""
    classes: dict[tuple[str, str], Any] = {}

    def get(self: Any, category: str, key: str) -> Any:
        if (category, key) not in classes:
            classes[category, key] = before(self, category, key)
        return classes[category, key]

    return get
