"""A run goes on from whatever an earlier driver left, with one driver at a time."""

from __future__ import annotations

import os

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import RunDirectory, run_lock
from gsfl_tune.search import open_study
from gsfl_tune.search.study.reconcile import (
    flat,
    reconcile,
    refuse_changes,
    study_signature,
)
from tests.search.experiments import experiment


def _plain(run: RunDirectory) -> optuna.Study:
    """The study as optuna-dashboard or anybody else opens it."""
    storage = JournalStorage(JournalFileBackend(str(run.journal)))
    return optuna.load_study(study_name="search", storage=storage)


def test_reconcile_settles_what_was_decided(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    for _ in range(4):
        study.ask()
    study.report(0, 0, 1.0)
    study.report(0, 1, 0.9)
    study.report(0, 2, 0.8)
    # Written by hand: a power cut between two records of one write.
    _plain(run).ask()
    storage = study._study._storage
    storage.set_trial_user_attr(study.trials()[2]._trial_id, "reason", "broken")
    study.prune(1, 5.0, 1)
    study.report(3, 0, 1.0)
    study = open_study(experiment(), run)
    result = reconcile(study, last_rung=2)
    assert result.again == [3, 4]
    assert result.settled == [0, 2]
    trials = _plain(run).trials
    assert [trial.state.name for trial in trials[:4]] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert trials[0].value == 0.8
    assert trials[1].intermediate_values == {1: 5.0}
    assert reconcile(study, last_rung=2).settled == []


def test_a_trial_that_was_cut_short_is_recorded_as_cut(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    study.ask()
    study.report(0, 0, 1.0)
    study.note(0, "ended", "time budget")
    assert reconcile(study, last_rung=3).settled == [0]
    trial = _plain(run).trials[0]
    assert trial.state.name == "PRUNED"
    assert trial.user_attrs["ended"] == "time budget"


def test_a_second_driver_is_refused_until_the_first_has_ended(run: RunDirectory) -> None:
    with run_lock(run):
        with pytest.raises(UserError, match=f"process {os.getpid()}"), run_lock(run):
            raise AssertionError("two drivers")
        # Whoever was refused has not taken the name of the owner away.
        assert run.lock_file.read_text() == f"{os.getpid()}\n"
    with run_lock(run):
        pass


def test_the_signature_has_every_parameter_and_constant_but_what_may_change() -> None:
    found = study_signature(experiment())
    assert "8 to 32" in found["model.latent_dim"]
    assert "when" in found["model.groups.count"]
    assert found["training.head.epochs"] == "4"
    assert not {"search.trials", "search.resources.cpu", "name"} & found.keys()
    more = experiment("search.trials=99", "search.resources.cpu=2")
    assert study_signature(more) == found
    assert study_signature(experiment("search.seed=4")) != found


def test_a_change_is_refused_before_anything_is_written(run: RunDirectory) -> None:
    refuse_changes(run, experiment())
    assert not run.journal.exists()
    open_study(experiment(), run).close()
    before = run.journal.read_bytes()
    refuse_changes(run, experiment("search.trials=99"))
    with pytest.raises(UserError, match=r"training\.head\.epochs: was 4, found 5"):
        refuse_changes(run, experiment("training.head.epochs=5"))
    assert run.journal.read_bytes() == before


def test_a_path_leads_to_every_leaf() -> None:
    nested = {"a": {"b": 1, "c": {"d": [2, 3]}}, "e": None}
    assert flat(nested) == {"a.b": 1, "a.c.d": [2, 3], "e": None}
