"""Checks of ``search.resources.shard``: what parameters that are divided do not go with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gsfl_tune.experiment.further_checks import Complaint
from gsfl_tune.experiment.space import Space, ends

_PATH = "search.resources.shard"
_BUDGET = "search.time_budget"
# Where a method passes its images through the network as a whole, once or twice. Others look into
# it, or change its weights for a moment.
METHODS = ("single", "rdrop", "two_views", "fixmatch")
_ALLOWED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("training.finetune.train", ("all",), "what else is trained is small, and need not be divided"),
    ("training.finetune.optimizer", ("adamw", "sgd"), "others need whole matrices or all weights"),
    ("training.finetune.unfreeze", (0,), "what is divided is trained from the beginning"),
    ("training.finetune.compile", (False,), "weights are joined between compiled parts"),
    ("training.finetune.snr", (False,), "its module stands inside of the divided blocks"),
    ("training.finetune.mixstyle", (0,), "it stands inside of the divided blocks"),
    ("training.method", METHODS, "others look into the network, or change its weights"),
)


def processes(resources: Mapping[str, Any]) -> int:
    """Returns how many processes a trial has, of keys of ``search.resources``."""
    gpu = resources.get("gpu") or 0
    return max(
        int(resources.get("gpus_per_trial") or 1),
        int(resources.get("workers_per_trial") or 1),
        int(gpu) if isinstance(gpu, int | float) else 1,
    )


def alone(found: int) -> str:
    """Says that one process has nothing to divide its parameters with."""
    return (
        f"found true for {found} process a trial, allowed false, or gpus_per_trial "
        "(workers_per_trial where there are no GPUs) of at least 2"
    )


def shard_problems(space: Space, *, finetunes: bool) -> Iterator[Complaint]:
    """Finds settings that divided parameters do not go with.

    Args:
        space: The compiled space.
        finetunes: Whether trials have a finetune stage.
    """
    every = space.constants.get(_PATH)
    entries = space.constants.get("search.resources.per_backbone") or []
    if not every and not any(entry.get("shard") is True for entry in entries):
        return
    if every:
        prefix = "search.resources."
        keys = ("gpu", "gpus_per_trial", "workers_per_trial")
        count = processes({key: space.constants.get(f"{prefix}{key}") for key in keys})
        if count < 2:
            yield _PATH, alone(count), True
    budget = space.constants.get(_BUDGET)
    if budget is not None:
        # Steps are timed in one task, which Ray places on one node: it may wait there for ever.
        yield (
            _BUDGET,
            f"found {budget} with {_PATH}, allowed without it: steps are timed in one process, "
            "which has no room for a model that several divide; give search.trials and epochs",
            budget,
        )
    if not finetunes:
        yield (
            _PATH,
            "found true without a finetune stage, allowed false: a frozen backbone is not divided",
            True,
        )
        return
    for path, allowed, why in _ALLOWED:
        for value in ends(space.possible(path)):
            if value not in allowed:
                words = ", ".join(map(_word, dict.fromkeys(allowed)))
                yield path, f"found {_word(value)} with {_PATH}, allowed {words}: {why}", value
                break


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"
