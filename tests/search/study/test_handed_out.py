"""A trial is handed out with all that its worker and the scheduler must know."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from gsfl_tune.search.study.handed_out import Asked
from tests.search.experiments import experiment


def test_the_next_driver_hands_out_the_same(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    first = study.ask()
    assert first is not None
    study.close()
    study = open_study(experiment(), run)
    assert study.again(0) == first
    study.report(0, 0, 2.0)
    # With a rung in the journal it is no longer what was handed out first.
    assert study.again(0) == Asked(0, first.params, protected=False, rungs={0: 2.0})
    assert study.again(0) != first


def test_a_configuration_of_the_users_is_protected_and_a_proposal_is_not(
    run: RunDirectory,
) -> None:
    study = open_study(experiment(), run)
    study.enqueue(experiment().default_params(), "enqueue[0]")
    own, proposed = study.ask(), study.ask()
    assert own is not None
    assert proposed is not None
    assert (own.number, own.protected) == (0, True)
    assert (proposed.number, proposed.protected) == (1, False)
    assert own.params == experiment().default_params()


def test_what_was_handed_out_stays_as_it_is() -> None:
    asked = Asked(3, {"model.latent_dim": 8}, protected=False, rungs={})
    with pytest.raises(FrozenInstanceError):
        asked.protected = True  # type: ignore[misc]
