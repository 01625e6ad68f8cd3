"""A grid has every distinct configuration of a conditional space once, in an order of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.space import Space
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Study, open_study
from gsfl_tune.search.samplers import grid
from gsfl_tune.search.samplers.configurations import Node, key_of, walk
from gsfl_tune.search.samplers.grid import grid_points
from tests.search.experiments import experiment

DISCRETE = "training.head.learning_rate={choice: [0.01, 0.001]}"


def _grid(*overrides: str) -> Experiment:
    return experiment("search.sampler.name=grid", DISCRETE, *overrides)


def _search(study: Study, trials: int = 1000) -> list[dict[str, Any]]:
    """What was handed out; some fail, and are not tried again."""
    seen: list[dict[str, Any]] = []
    while len(seen) < trials and (asked := study.ask()) is not None:
        seen.append(asked.params)
        if asked.number % 5 == 4:
            study.fail(asked.number, "broken")
        else:
            study.complete(asked.number, float(asked.params["model.dropout"]), 0)
    return seen


def test_grid_tries_each_configuration_once_and_ends(run: RunDirectory) -> None:
    study = open_study(_grid(), run)
    first = {
        "model.head": "gsfl", "model.latent_dim": 8, "model.dropout": 0.3,
        "model.groups.count": 2, "training.head.learning_rate": 0.01,
    }  # fmt: skip
    study.enqueue(first, "defaults")
    seen = _search(study)
    # 3 group counts with the GSFL head, none with the plain one: not 2 * 3 * 4 * 3 * 2.
    assert len(seen) == (3 + 1) * 4 * 3 * 2
    assert len({tuple(sorted(params.items())) for params in seen}) == len(seen)
    assert study.ask() is None


def test_grid_refuses_what_has_no_steps() -> None:
    with pytest.raises(UserError, match=r"model\.dropout"):
        grid_points(experiment("model.dropout={float: [0, 1]}", DISCRETE).space, 0)


def test_grid_refuses_to_walk_for_ever() -> None:
    huge = experiment(
        DISCRETE, "model.latent_dim={int: [2, 4096]}", "model.dropout={float: [0, 0.9], step: 0.01}"
    )
    with pytest.raises(UserError, match="100000"):
        grid_points(huge.space, 0)


def test_a_grid_is_walked_once_and_not_for_every_trial(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks = []

    def counted(space: Space) -> Iterator[Node]:
        walks.append(space)
        return walk(space)

    monkeypatch.setattr(grid, "walk", counted)
    tried = _grid()
    study = open_study(tried, run)
    study.enqueue(tried.default_params(), "defaults")
    assert len(_search(study, 6)) == 6
    assert len(walks) == 1


def test_the_order_is_shuffled_by_the_seed_and_all_are_there_in_any() -> None:
    space = _grid().space
    one, same, other = (grid_points(space, seed) for seed in (1, 1, 2))
    assert one == same != other
    walked = [node.point for node in walk(space)]
    assert one != walked
    assert sorted(map(str, one)) == sorted(map(str, other)) == sorted(map(str, walked))
    assert len({key_of(space, point) for point in one}) == len(one)


def test_the_end_of_a_range_is_the_decimal_in_the_file() -> None:
    """Six steps of 0.1 are 0.6000000000000001 in floating point, and beyond the end."""
    space = _grid("model.dropout={float: [0, 0.6], step: 0.1}").space
    found = {point["model.dropout"] for point in grid_points(space, 0)}
    assert found == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6}
    # A study of an earlier version has it as it was: it counts as tried.
    point = next(each for each in grid_points(space, 0) if each["model.dropout"] == 0.6)
    earlier = {**point, "model.dropout": 6 * 0.1}
    assert earlier != point
    assert key_of(space, earlier) == key_of(space, point)
