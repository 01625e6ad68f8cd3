"""What a study proposes next depends on its history alone."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from gsfl_tune.experiment import Experiment
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Study, open_study
from gsfl_tune.search.study.proposals import Proposals
from tests.search.experiments import experiment

# Two configurations are left: head gsfl and head plain.
SMALL = (
    "training.head.learning_rate=0.01",
    "model.latent_dim=8",
    "model.dropout=0",
    "model.groups.count=2",
)


def _plain(run: RunDirectory) -> optuna.Study:
    """The study as optuna-dashboard or anybody else opens it."""
    storage = JournalStorage(JournalFileBackend(str(run.journal)))
    return optuna.load_study(study_name="search", storage=storage)


def _proposals(tried: Experiment) -> Proposals:
    search = tried.defaults().search
    return Proposals(search.sampler, tried.space, search.seed)


def _next(study: Study) -> dict[str, Any]:
    asked = study.ask()
    assert asked is not None
    study.complete(asked.number, float(asked.params["model.dropout"]) + asked.number / 100)
    return asked.params


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_whoever_comes_late_proposes_what_whoever_was_there_does(
    run: RunDirectory, name: str
) -> None:
    tried = experiment(f"search.sampler.name={name}", "search.sampler.startup_trials=2")
    study = open_study(tried, run)
    always = _proposals(tried)
    for number in range(5):
        before = run.journal.read_bytes()
        seen = _plain(run)
        found = always.new(seen, number)
        late = _proposals(tried).new(seen, number)
        assert found is not None
        assert late is not None
        assert found.params == late.params
        # A proposal is no trial yet.
        assert len(seen.trials) == number
        assert run.journal.read_bytes() == before
        assert _next(study) == found.params


def test_no_configuration_is_proposed_twice_and_the_end_is_told(run: RunDirectory) -> None:
    tried = experiment(*SMALL, "search.sampler.name=random")
    study = open_study(tried, run)
    proposals = _proposals(tried)
    heads = []
    for number in range(2):
        found = proposals.new(_plain(run), number)
        assert found is not None
        heads.append(found.params["model.head"])
        asked = study.ask()
        assert asked is not None
        study.complete(number, 1.0)
    assert sorted(heads) == ["gsfl", "plain"]
    assert proposals.new(_plain(run), 2) is None
    assert len(proposals.tried) == 2


def test_a_grid_is_enumerated_once_and_other_samplers_begin_anew(run: RunDirectory) -> None:
    grid = _proposals(experiment(*SMALL, "search.sampler.name=grid"))
    assert grid.sampler(0) is grid.sampler(1)
    drawn = _proposals(experiment("search.sampler.name=random"))
    assert drawn.sampler(0) is not drawn.sampler(0)
