"""Checks of what a search goes by: metrics, objectives, costs of answers."""

from __future__ import annotations

from collections.abc import Iterator

from gsfl_tune.experiment.fields import MISSING
from gsfl_tune.experiment.further_checks import Complaint
from gsfl_tune.experiment.metrics import COST, LATENCY, SHARES, VALIDATION
from gsfl_tune.experiment.missing import missing_file
from gsfl_tune.experiment.space import Space, ends

_EXPECTED_COST = f"{VALIDATION}/{COST}"


def search_problems(space: Space) -> Iterator[Complaint]:
    """Finds settings of the section `search` that do not go together.

    Args:
        space: The compiled space.
    """
    yield from _costs(space)
    yield from _objectives(space)


def _costs(space: Space) -> Iterator[Complaint]:
    path = space.constants.get("search.cost_matrix")
    complaint = None if path is None else missing_file(path)
    if complaint:
        yield "search.cost_matrix", f"{complaint}; allowed a CSV file of costs", path
    if path is None and space.constants.get("search.metric") == _EXPECTED_COST:
        yield (
            "search.metric",
            f"found {_EXPECTED_COST} without search.cost_matrix, allowed another metric, or "
            "search.cost_matrix: a CSV file of costs",
            _EXPECTED_COST,
        )


def _objectives(space: Space) -> Iterator[Complaint]:
    found = space.constants.get("search.objectives")
    if found is None:
        return
    if not (len(found) == 2 and found[0] in SHARES and found[1] == LATENCY):
        yield (
            "search.objectives",
            f"found [{', '.join(map(str, found))}], allowed [METRIC, {LATENCY}] with one of "
            f"{', '.join(SHARES)} as METRIC",
            MISSING,
        )
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
            "found cmaes with two objectives, allowed tpe, gp, random, sobol, grid",
            MISSING,
        )
