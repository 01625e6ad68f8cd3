"""What is read of a study while its search goes on."""

from __future__ import annotations

import pytest

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from gsfl_tune.search.study.study import Study
from tests.search.experiments import experiment

ACCURACY = "search.metric=validation/accuracy"
TWO = "search.objectives=[validation/accuracy, latency_ms]"
LATENCY = {"runs": 30, "threads": 1, "device": "cpu"}


def asked(study: Study, count: int) -> list[int]:
    numbers = []
    for _ in range(count):
        trial = study.ask()
        assert trial is not None
        numbers.append(trial.number)
    return numbers


@pytest.mark.parametrize(
    ("metric", "order"),
    [("validation/nll", [2, 0, 3, 1]), ("validation/accuracy", [1, 0, 3, 2])],
)
def test_the_ranking_follows_the_direction_and_ties_the_number(
    run: RunDirectory, metric: str, order: list[int]
) -> None:
    study = open_study(experiment(f"search.metric={metric}"), run)
    for number, value in zip(asked(study, 4), (0.5, 0.9, 0.1, 0.5), strict=True):
        study.complete(number, value)
    assert [trial.number for trial in study.ranking()] == order
    best = study.best()
    assert best is not None
    assert best.number == order[0]
    assert study.value(best) == best.values[0]


def test_trials_without_an_end_are_counted_and_not_ranked(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    asked(study, 5)
    study.complete(0, 0.4)
    study.prune(1, 0.1, 0)
    study.fail(2, "loss is nan")
    assert study.counts() == {"COMPLETE": 1, "PRUNED": 1, "FAIL": 1, "RUNNING": 2, "WAITING": 0}
    assert [trial.number for trial in study.ranking()] == [0]
    assert study.running() == [3, 4]
    assert study.value(study.trial(3)) is None
    assert study.created() == 5


def test_before_any_trial_has_ended_there_is_no_best(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    asked(study, 1)
    assert study.best() is None
    assert study.ranking() == []


def test_what_waits_is_not_counted_as_handed_out(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    study.enqueue({"model.latent_dim": 16}, "user")
    assert study.counts()["WAITING"] == 1
    assert study.created() == 0
    asked(study, 1)
    assert study.counts()["WAITING"] == 0
    assert study.created() == 1


def test_rungs_are_those_of_the_first_objective(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    asked(study, 1)
    study.report(0, 0, 0.7)
    study.report(0, 1, 0.6)
    assert dict(study.rungs(study.trial(0))) == {0: 0.7, 1: 0.6}


def test_what_is_read_is_what_a_second_reader_sees(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    for number, value in zip(asked(study, 3), (0.3, 0.2, 0.4), strict=True):
        study.complete(number, value)
    known = [(trial.number, trial.params, trial.values) for trial in study.ranking()]
    # As of the last proposal, which was the third.
    assert study.configurations == 2
    study.close()
    again = open_study(experiment(), run)
    assert [(t.number, t.params, t.values) for t in again.ranking()] == known
    assert again.counts()["COMPLETE"] == 3
    again.close()


def test_with_several_objectives_rungs_are_numbers_too(run: RunDirectory) -> None:
    study = open_study(experiment(ACCURACY, TWO), run)
    asked(study, 1)
    study.report(0, 0, 0.1)
    study.report(0, 1, 0.2)
    study.close()
    # From the journal, where keys are text.
    again = open_study(experiment(ACCURACY, TWO), run)
    assert dict(again.rungs(again.trial(0))) == {0: 0.1, 1: 0.2}
    again.close()


def test_a_trial_that_breaks_a_constraint_comes_last_and_is_never_the_best(
    run: RunDirectory,
) -> None:
    study = open_study(experiment(ACCURACY, "search.constraints=[latency_ms < 20]"), run)
    asked(study, 3)
    study.complete(0, 0.9, latency={**LATENCY, "latency_ms": 40.0})
    study.complete(1, 0.8, latency={**LATENCY, "latency_ms": 30.0})
    assert study.best() is None
    study.complete(2, 0.1, latency={**LATENCY, "latency_ms": 10.0})
    # The one that breaks it least comes first of those.
    assert [trial.number for trial in study.ranking()] == [2, 1, 0]
    best = study.best()
    assert best is not None
    assert best.number == 2
