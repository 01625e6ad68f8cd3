"""Checks of what a search goes by: metrics, objectives, constraints, costs of answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gsfl_tune.experiment.constraints import parse_constraint
from gsfl_tune.experiment.fields import MISSING
from gsfl_tune.experiment.further_checks import Complaint
from gsfl_tune.experiment.metrics import COST, MEASURED, METRICS, SHARES, VALIDATION
from gsfl_tune.experiment.missing import missing_file
from gsfl_tune.experiment.space import Space, ends

_EXPECTED_COST = f"{VALIDATION}/{COST}"
_MOST_OBJECTIVES = 4


def search_problems(space: Space) -> Iterator[Complaint]:
    """Finds settings of the section `search` that do not go together.

    Args:
        space: The compiled space.
    """
    yield from _costs(space)
    yield from _objectives(space)
    yield from _constraints(space)
    yield from _folds(space)
    yield from _promotion(space)
    yield from _pretraining_rungs(space)


def _costs(space: Space) -> Iterator[Complaint]:
    path = space.constants.get("search.cost_matrix")
    complaint = None if path is None else missing_file(path)
    if complaint:
        yield "search.cost_matrix", f"{complaint}; allowed a CSV file of costs", path
    if path is not None:
        return
    for key in ("metric", "objectives", "constraints"):
        found = space.constants.get(f"search.{key}") or []
        listed = [found] if isinstance(found, str) else [each for each in found if _is_cost(each)]
        if listed and _is_cost(listed[0]):
            yield (
                f"search.{key}",
                f"found {_EXPECTED_COST} without search.cost_matrix, allowed another metric, or "
                "search.cost_matrix: a CSV file of costs",
                listed[0],
            )


def _is_cost(text: Any) -> bool:
    return str(text).startswith(_EXPECTED_COST)


def _objectives(space: Space) -> Iterator[Complaint]:
    found = space.constants.get("search.objectives")
    if space.constants.get("search.scheduler.by_objectives") and not found:
        yield (
            "search.scheduler.by_objectives",
            "found true without search.objectives, allowed false, or search.objectives",
            MISSING,
        )
    if found is None:
        return
    complaint = _wrong_objectives(found)
    if complaint is not None:
        yield "search.objectives", complaint, MISSING
        return
    metric = space.constants.get("search.metric", found[0])
    if metric != found[0]:
        yield (
            "search.metric",
            f"found {metric} with search.objectives, allowed {found[0]} (its first) or nothing",
            MISSING,
        )
    if "cmaes" in ends(space.possible("search.sampler.name")):
        yield (
            "search.sampler.name",
            "found cmaes with several objectives, allowed tpe, gp, random, sobol, grid",
            MISSING,
        )


def _wrong_objectives(found: list[str]) -> str | None:
    if not 2 <= len(found) <= _MOST_OBJECTIVES:
        return (
            f"found [{', '.join(found)}], allowed two to {_MOST_OBJECTIVES}: [METRIC, OTHER, ...]"
        )
    able = (*MEASURED, *METRICS)
    for place, key in enumerate(found):
        if key in found[:place]:
            return f"found {key} twice, allowed once"
        allowed = able if place else SHARES
        if key not in allowed:
            which = f"as number {place + 1}" if place else "as the first"
            return f"found {key} {which}, allowed one of {', '.join(allowed)}"
    return None


def _constraints(space: Space) -> Iterator[Complaint]:
    for text in space.constants.get("search.constraints") or []:
        try:
            parse_constraint(text)
        except ValueError as error:
            yield "search.constraints", str(error), text


def _promotion(space: Space) -> Iterator[Complaint]:
    scheduler = space.constants.get("search.scheduler.name")
    if space.constants.get("search.scheduler.promote") and scheduler == "none":
        yield (
            "search.scheduler.promote",
            "found true with search.scheduler.name none, which pauses no trial; allowed false, or "
            "scheduler asha",
            True,
        )


def _pretraining_rungs(space: Space) -> Iterator[Complaint]:
    path = "search.scheduler.pretrain_grace"
    grace = space.constants.get(path)
    if grace is None:
        return
    if True not in ends(space.possible("training.pretrain")):
        yield (
            path,
            f"found {grace} without a pretraining, allowed null, or training.pretrain: true",
            grace,
        )
    elif space.constants.get("search.scheduler.name") == "none":
        yield (
            path,
            f"found {grace} with search.scheduler.name none, which compares no trials; allowed "
            "null, or scheduler asha",
            grace,
        )


def _folds(space: Space) -> Iterator[Complaint]:
    folds, shots = space.constants.get("search.folds"), space.constants.get("data.shots")
    if folds and shots is not None:
        yield (
            "search.folds",
            f"found {folds} with data.shots {shots}, allowed nothing, or all training images; "
            "search.repeats takes further seeds",
            folds,
        )
