from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from tests.search.experiments import experiment


def _plain(run: RunDirectory) -> optuna.Study:
    """The study as optuna-dashboard or anybody else opens it."""
    storage = JournalStorage(JournalFileBackend(str(run.journal)))
    return optuna.load_study(study_name="search", storage=storage)


def test_states_as_another_program_reads_them(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    for _ in range(4):
        assert study.ask() is not None
    study.report(0, 0, 3.0)
    study.report(0, 1, 2.5)
    study.complete(0, 2.5)
    study.prune(1, 4.0, 0)
    study.fail(2, "non-finite train/loss in epoch 2")
    trials = _plain(run).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert trials[0].value == 2.5
    assert trials[0].intermediate_values == {0: 3.0, 1: 2.5}
    assert trials[1].intermediate_values == {0: 4.0}
    assert trials[2].user_attrs["reason"] == "non-finite train/loss in epoch 2"
    assert _plain(run).direction.name == "MINIMIZE"
    assert study.counts() == {"COMPLETE": 1, "PRUNED": 1, "FAIL": 1, "RUNNING": 1, "WAITING": 0}
    assert study.running() == [3]
    assert study.best().number == 0  # type: ignore[union-attr]


def test_everything_may_be_told_twice(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    study.ask()
    study.report(0, 0, 3.0)
    study.report(0, 0, 9.0)
    study.complete(0, 3.0)
    for again in (study, open_study(experiment(), run)):
        again.complete(0, 1.0)
        again.prune(0, 1.0, 1)
        again.fail(0, "late")
        again.report(0, 1, 1.0)
    trial = _plain(run).trials[0]
    assert trial.state.name == "COMPLETE"
    assert trial.value == 3.0
    assert trial.intermediate_values == {0: 3.0}
    assert trial.user_attrs == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_fails_with_a_reason(run: RunDirectory, value: float) -> None:
    study = open_study(experiment(), run)
    study.ask()
    study.complete(0, value)
    trial = _plain(run).trials[0]
    assert trial.state.name == "FAIL"
    assert "validation/nll" in trial.user_attrs["reason"]


def test_ranking_follows_the_direction_of_the_metric(run: RunDirectory) -> None:
    study = open_study(experiment("search.metric=validation/accuracy"), run)
    for value in (0.2, 0.7, 0.7, 0.1):
        asked = study.ask()
        assert asked is not None
        study.complete(asked.number, value)
    study.ask()
    study.prune(4, 0.9, 0)
    assert [trial.number for trial in study.ranking()] == [1, 2, 0, 3]


def test_a_trial_under_way_is_handed_out_again_with_its_parameters(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    first = study.ask()
    assert first is not None
    study.report(0, 0, 2.0)
    again = open_study(experiment(), run).again(0)
    assert again.params == first.params
    assert again.rungs == {0: 2.0}


def test_a_proposal_that_a_killed_driver_did_not_write_whole_is_made_again(
    run: RunDirectory,
) -> None:
    asked = open_study(experiment(), run).ask()
    assert asked is not None
    lines = run.journal.read_bytes().splitlines(keepends=True)
    [record] = [index for index, line in enumerate(lines) if b'"op_code":4' in line]
    # Killed in the middle of the write.
    run.journal.write_bytes(b"".join(lines[:record]) + lines[record][:200])
    study = open_study(experiment(), run)
    assert study.trials() == []
    assert study.ask() == asked
    assert [trial.params for trial in _plain(run).trials] == [asked.params]


def test_parameters_that_an_earlier_version_did_not_write_are_drawn_again(
    run: RunDirectory,
) -> None:
    study = open_study(experiment(), run)
    # It wrote a record a parameter, and was killed after the first.
    other = _plain(run)
    trial = other.ask()
    trial.suggest_categorical("model.head", ["gsfl", "plain"])
    study.close()
    again = open_study(experiment(), run).again(0)
    assert again.params["model.head"] == trial.params["model.head"]
    assert experiment().configure(again.params)
    assert _plain(run).trials[0].params == again.params


def test_a_trial_is_written_whole(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    study.ask()
    study.ask()
    data = run.journal.read_bytes()
    # Whatever another process sees at any moment: a trial has its parameters.
    assert all(len(trial.params) >= 4 for trial in _plain(run).trials)
    study.complete(0, 1.0, 3)
    tail = run.journal.read_bytes()[len(data) :].splitlines()
    assert len(tail) == 2


def test_another_writer_of_the_journal_does_no_harm(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    study.ask()
    other = _plain(run)
    other.set_user_attr("note", "written by a dashboard")
    study.ask()
    other.set_user_attr("note", "again")
    study.complete(0, 1.0, 3)
    study.prune(1, 2.0, 0)
    assert [trial.state.name for trial in _plain(run).trials] == ["COMPLETE", "PRUNED"]
    assert study.counts()["COMPLETE"] == 1
    assert study.counts()["PRUNED"] == 1


def test_the_lock_of_a_dead_writer_does_not_stop_the_next(run: RunDirectory) -> None:
    open_study(experiment(), run).ask()
    Path(f"{run.journal}.lock").symlink_to(run.journal)
    study = open_study(experiment(), run)
    study.complete(0, 1.0)
    assert study.counts()["COMPLETE"] == 1


def test_two_studies_share_the_journal(run: RunDirectory) -> None:
    search = open_study(experiment(), run)
    control = open_study(experiment().fixed({"model.head": "plain"}), run, "control")
    search.ask()
    asked = control.ask()
    assert asked is not None
    assert asked.number == 0
    assert "model.groups.count" not in asked.params
    control.complete(0, 1.0)
    assert search.counts()["RUNNING"] == 1
    assert all(json.loads(line) for line in run.journal.read_text().splitlines())


def test_a_configuration_that_a_lost_journal_had_is_not_tried_again_and_is_protected(
    run: RunDirectory,
) -> None:
    study = open_study(experiment(), run)
    plain = {
        "model.head": "plain",
        "model.latent_dim": 16,
        "model.dropout": 0.3,
        "training.head.learning_rate": 0.01,
    }
    # Some samplers write inactive parameters too.
    study.recreate({**plain, "model.groups.count": 3})
    study.enqueue(plain, "enqueue[0]")
    assert study.counts()["WAITING"] == 0
    assert study.again(0).protected
    assert study.trial(0).user_attrs["origin"] == "enqueue[0]"
    # One that is as it was, but for one value, is another.
    study.enqueue({**plain, "model.latent_dim": 8}, "enqueue[1]")
    assert study.counts()["WAITING"] == 1
    # What has ended keeps what is known of it.
    study.recreate({**plain, "model.dropout": 0.6})
    study.complete(2, 1.0)
    study.enqueue({**plain, "model.dropout": 0.6}, "enqueue[2]")
    assert study.counts()["WAITING"] == 1
    assert "origin" not in study.trial(2).user_attrs


def test_a_closed_study_leaves_no_thread_that_writes(run: RunDirectory) -> None:
    before = set(threading.enumerate())
    study = open_study(experiment(), run)
    study.ask()
    assert set(threading.enumerate()) - before
    study.close()
    assert not set(threading.enumerate()) - before
    # It stays readable, and may go on.
    study.complete(0, 1.0)
    assert study.counts()["COMPLETE"] == 1
    study.close()
