"""The two spaces of a run: the search's own, and a plain head without what only GSFL-Net has."""

from __future__ import annotations

import numpy as np
import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.space import Space
from gsfl_tune.run import RunDirectory, write_text
from gsfl_tune.search.samplers.configurations import Anywhere
from gsfl_tune.search.samplers.spaces import plain_space, run_spaces, unchecked
from tests.search.experiments import experiment

GSFL = (
    "loss.reconstruction={float: [0, 1]}",
    "loss.shared_center={float: [0, 1], when: {model.head: gsfl}}",
    "model.groups.count={int: [2, 4]}",
    "model.groups.method={choice: [kmeans, random]}",
    "loss.group_reversal.weight={float: [0, 1]}",
    "loss.independence.measure={choice: [cosine, hsic_linear]}",
)
WIDE = experiment(*GSFL, "search.enqueue=[{model.head: gsfl, model.dropout: 0.3}]")
SHARED = {"model.latent_dim", "model.dropout", "training.head.learning_rate"}


def _names(space: Space) -> set[str]:
    return {parameter.name for parameter in space.parameters}


def test_a_control_searches_what_a_plain_head_has_and_nothing_else() -> None:
    plain = plain_space(WIDE)
    assert _names(plain.space) == SHARED < _names(WIDE.space)
    kinds = {each.name: each.distribution for each in WIDE.space.parameters}
    assert all(each.distribution == kinds[each.name] for each in plain.space.parameters)
    rng = np.random.default_rng(0)
    for _ in range(20):
        params = plain.space.suggest(Anywhere(rng))
        config = plain.configure(params)
        assert config.model.head == "plain"
        assert config.model.latent_dim == params["model.latent_dim"]


def test_configurations_that_are_enqueued_for_the_search_are_none_of_the_control() -> None:
    assert WIDE.defaults().search.enqueue
    assert not plain_space(WIDE).defaults().search.enqueue
    # The experiment itself stays what it was.
    assert WIDE.defaults().model.head == "gsfl"


def test_a_run_has_both_spaces_and_a_directory_without_a_file_none(run: RunDirectory) -> None:
    assert run_spaces(run) == {}
    write_text(run.experiment_file, WIDE.to_yaml())
    found = run_spaces(run)
    assert {name: _names(space) for name, space in found.items()} == {
        "search": _names(WIDE.space),
        "control": SHARED,
    }


def test_what_was_checked_when_it_was_written_is_not_checked_again() -> None:
    # As after a change of the rules: what a file may not say today.
    text = experiment().fixed({"search.sampler.name": "grid"}).to_yaml()
    with pytest.raises(UserError, match="grid"):
        experiment(text=text)
    assert unchecked(text).defaults().search.sampler.name == "grid"
    with pytest.raises(ValueError, match="no experiment"):
        unchecked("name: [")
