"""Trials that wait at a rung, as other processes, samplers and later drivers see them."""

from __future__ import annotations

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from gsfl_tune.experiment import Experiment
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Study, open_study
from gsfl_tune.search.samplers.history import SeenTrials
from gsfl_tune.search.samplers.observations import Observed
from gsfl_tune.search.study.goals import knn_by_epoch
from gsfl_tune.search.study.reconcile import reconcile
from tests.search.experiments import experiment


def plain(run: RunDirectory) -> optuna.Study:
    """The study as another program opens it."""
    storage = JournalStorage(JournalFileBackend(str(run.journal)))
    return optuna.load_study(study_name="search", storage=storage)


def opened(run: RunDirectory, tried: Experiment | None = None) -> Study:
    return open_study(tried or experiment("search.sampler.name=random"), run)


def test_a_paused_trial_can_go_on_or_be_stopped(run: RunDirectory) -> None:
    study = opened(run)
    for number in range(3):
        assert study.ask() is not None
        study.pause(number, 4.0 + number, 0)
    assert study.paused() == {0: 0, 1: 0, 2: 0}
    assert study.states() == {
        "COMPLETE": 0, "PRUNED": 0, "FAIL": 0, "RUNNING": 0, "WAITING": 0, "PAUSED": 3,
    }  # fmt: skip
    assert study.counts()["RUNNING"] == 3
    again = study.again(1)
    assert again.number == 1
    assert again.rungs == {0: 5.0}
    assert study.states()["RUNNING"] == 1
    study.pause(1, 3.0, 1)
    study.again(2)
    study.complete(2, 2.0)
    assert study.prune_paused() == [0, 1]
    assert study.prune_paused() == []
    states = [(trial.state.name, trial.value) for trial in plain(run).trials]
    assert states == [("PRUNED", 4.0), ("PRUNED", 3.0), ("COMPLETE", 2.0)]


def test_a_later_driver_finds_what_was_paused(run: RunDirectory) -> None:
    study = opened(run)
    for number in range(3):
        study.ask()
        study.pause(number, 1.0, 0)
    study.again(2)
    # Its last rung: with a limit of rungs, only a trial that is not paused has ended.
    found = opened(run)
    assert found.paused() == {0: 0, 1: 0}
    reconciled = reconcile(found, last_rung=2)
    assert (reconciled.again, reconciled.settled) == ([2], [])
    assert found.paused() == {0: 0, 1: 0}


def test_an_ended_trial_is_not_paused(run: RunDirectory) -> None:
    study = opened(run)
    study.ask()
    study.fail(0, "broken")
    study.pause(0, 1.0, 0)
    assert not study.paused()
    assert opened(run).trial(0).user_attrs == {"reason": "broken"}


def test_samplers_learn_from_a_paused_trial_as_from_one_that_was_stopped(
    run: RunDirectory,
) -> None:
    tried = experiment("search.sampler.name=random")
    study = opened(run, tried)
    for _ in range(4):
        study.ask()
    study.complete(0, 2.0)
    study.prune(1, 5.0, 0)
    study.pause(2, 4.0, 0)
    seen = SeenTrials()
    assert [each.number for each in seen.look(plain(run), -1)] == [3]
    assert [each.number for each in seen.best(9)] == [0, 2, 1]
    observed = Observed(plain(run), tried.space, 9)
    assert {each.number: each.value for each in observed.ended} == {0: 2.0, 1: 5.0, 2: 4.0}
    # It goes on: it runs, and is no observation any more.
    study.again(2)
    assert [each.number for each in seen.look(plain(run), -1)] == [2, 3]
    assert [each.number for each in seen.best(9)] == [0, 1]
    assert {each.number for each in Observed(plain(run), tried.space, 9).ended} == {0, 1}
    # It pauses again, deeper.
    study.pause(2, 3.0, 1)
    assert [each.number for each in seen.look(plain(run), -1)] == [3]
    assert [each.number for each in seen.best(9)] == [0, 2, 1]
    assert seen.best(9)[1].value == 3.0
    study.again(2)
    study.complete(2, 1.0)
    assert [each.number for each in seen.look(plain(run), -1)] == [3]
    assert [each.number for each in seen.best(9)] == [2, 0, 1]


def test_a_pause_has_its_place_among_the_ends(run: RunDirectory) -> None:
    """Optuna's CMA-ES counts off populations in this order: it must not change afterwards."""
    tried = experiment("search.sampler.name=random")
    study = opened(run, tried)
    for _ in range(5):
        study.ask()

    def order() -> list[int]:
        return [each.number for each in Observed(plain(run), tried.space, 9).ended]

    study.complete(3, 2.0)
    study.pause(1, 4.0, 0)
    study.prune(2, 5.0, 0)
    study.pause(0, 6.0, 0)
    assert order() == [3, 1, 2, 0]
    study.complete(4, 1.0)
    assert order() == [3, 1, 2, 0, 4]
    # A later driver finds the same, and the place stays where such a trial is stopped for good.
    assert opened(run, tried).prune_paused(1) == [1]
    assert order() == [3, 1, 2, 0, 4]


def test_one_that_goes_on_ends_later(run: RunDirectory) -> None:
    tried = experiment("search.sampler.name=random")
    study = opened(run, tried)
    for _ in range(2):
        study.ask()
    study.pause(0, 4.0, 0)
    study.complete(1, 2.0)
    study.again(0)
    study.complete(0, 3.0)
    assert [each.number for each in Observed(plain(run), tried.space, 9).ended] == [1, 0]


def test_the_worst_of_the_earliest_rung_is_given_up_first(run: RunDirectory) -> None:
    study = opened(run)
    assert study.worst_paused() is None
    for number, rungs in enumerate([(1.0,), (9.0,), (9.0, 8.0)]):
        study.ask()
        for k, value in enumerate(rungs):
            study.pause(number, value, k)
    # Less is better: validation/nll.
    for number in (1, 0, 2):
        assert study.worst_paused() == number
        assert study.prune_paused(number) == [number]
    assert study.counts()["PRUNED"] == 3


def test_a_trial_that_is_stopped_in_its_pretraining_has_no_value(run: RunDirectory) -> None:
    study = opened(run)
    for number in range(3):
        assert study.ask() is not None
        study.note_pretraining(number, 25, 0.5 + number / 10)
    study.prune(0, 0.5, -2)
    study.pause(1, 0.4, -2)
    study.report(2, -2, 0.3)
    study.note_pretraining(2, 50, 0.75)
    study.report(2, -1, 0.25)
    study.complete(2, 2.0, 0)
    first, waiting, last = plain(run).trials
    assert (first.state.name, first.values, first.intermediate_values) == (
        "PRUNED",
        None,
        {-2: 0.5},
    )
    assert last.intermediate_values == {-2: 0.3, -1: 0.25, 0: 2.0}
    assert knn_by_epoch(last) == {25: 0.7, 50: 0.75}
    assert waiting.user_attrs["paused"] == -2
    study.close()
    # A later driver finds it waiting, and samplers rank it behind trials that came further.
    again = opened(run)
    assert again.paused() == {1: -2}
    seen = SeenTrials()
    seen.look(plain(run), -1)
    assert [each.number for each in seen.best(3)] == [2, 1, 0]
    assert again.prune_paused() == [1]
    assert plain(run).trials[1].values is None
