"""Constraints and further objectives in the journal, and who can win."""

from __future__ import annotations

import math

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Study, choose_finalists, open_study, pareto_entries, write_trials
from gsfl_tune.search.finals.protocol import no_finalist
from gsfl_tune.search.study.goals import Goals, others_by_rung
from gsfl_tune.search.study.reconcile import reconcile, study_signature
from tests.search.experiments import experiment

CONSTRAINED = (
    "search.metric=validation/accuracy",
    "search.constraints=[size_mb < 10, validation/worst_recall > 0.2]",
)
FOUR = (
    "search.metric=validation/accuracy",
    "search.objectives=[validation/accuracy, size_mb, validation/nll, macs]",
)


def numbers(size: float, recall: float = 0.5) -> dict[str, float]:
    return {"size_mb": size, "validation/worst_recall": recall}


def ended(study: Study, value: float, size: float, recall: float = 0.5) -> int:
    number = study.ask().number  # type: ignore[union-attr]
    study.report(number, 0, value / 2, numbers(size, recall / 2))
    study.complete(number, value, 2, others=numbers(size, recall))
    return number


def test_the_best_trial_is_one_that_keeps_the_constraints(run: RunDirectory) -> None:
    made = experiment(*CONSTRAINED)
    study = open_study(made, run)
    ended(study, 0.9, 20.0)
    assert study.best() is None
    ended(study, 0.8, 10.5)
    ended(study, 0.7, 5.0, recall=0.1)
    ended(study, 0.5, 9.0)
    ended(study, 0.6, 9.5)
    study.close()
    again = open_study(made, run)
    assert again.best().number == 4
    assert [trial.number for trial in again.ranking()] == [4, 3, 1, 2, 0]
    assert again.trial(1).constraints == pytest.approx(
        {"size_mb < 10": 0.05, "validation/worst_recall > 0.2": -1.5}
    )
    assert others_by_rung(again.trial(1))[0] == numbers(10.5, 0.25)
    assert [trial.number for trial in choose_finalists(again, 3)] == [4, 3]
    # Optuna's own record: its samplers and its dashboard read it.
    storage = JournalStorage(JournalFileBackend(str(run.journal)))
    plain = optuna.load_study(study_name="search", storage=storage)
    assert plain.best_trial.number == 4
    write_trials(run)
    import pandas

    table = pandas.read_parquet(run.trials_parquet).set_index("number")
    assert table["feasible"].tolist() == [False, False, False, True, True]
    assert table["size_mb"].tolist() == [20.0, 10.5, 5.0, 9.0, 9.5]


def test_a_stopped_trial_that_breaks_a_constraint_is_no_finalist(run: RunDirectory) -> None:
    study = open_study(experiment(*CONSTRAINED), run)
    ended(study, 0.5, 9.0)
    for size, recall in ((20.0, 0.5), (9.0, 0.5), (9.0, 0.1)):
        number = study.ask().number
        study.report(number, 0, 0.3, numbers(size, recall))
        study.prune(number, 0.9, 1, numbers(size, recall))
    # Stopped by lack of time: judged by its last rung.
    number = study.ask().number
    study.report(number, 1, 0.8, numbers(20.0))
    study.cut(number, "time")
    assert study.trial(4).constraints["size_mb < 10"] == pytest.approx(1.0)
    assert {trial.number for trial in choose_finalists(study, 9)} == {0, 2}


def test_a_search_without_a_trial_that_keeps_them_says_how_near_it_came(run: RunDirectory) -> None:
    study = open_study(experiment(*CONSTRAINED), run)
    ended(study, 0.9, 20.0, recall=0.1)
    ended(study, 0.8, 12.5)
    assert choose_finalists(study, 3) == []
    assert no_finalist(study) == (
        "search: no trial keeps search.constraints (size_mb < 10, validation/worst_recall > 0.2); "
        "the nearest is trial 1: size_mb 12.5"
    )


def test_what_was_not_measured_is_no_result(run: RunDirectory) -> None:
    study = open_study(experiment(*CONSTRAINED), run)
    for _ in range(3):
        study.ask()
    study.complete(0, 0.5, 2, others={"validation/worst_recall": 0.5})
    study.complete(1, 0.5, 2, others=numbers(math.nan))
    reasons = [study.trial(number).user_attrs["reason"] for number in (0, 1)]
    assert reasons == ["its size_mb was not measured", "size_mb is nan"]
    # A driver died before the end was told: it is trained and measured again from its checkpoint.
    study.report(2, 2, 0.5, numbers(9.0))
    assert reconcile(study, 2).again == [2]


def test_four_objectives_are_kept_at_every_rung_and_make_a_front(run: RunDirectory) -> None:
    made = experiment(*FOUR)
    study = open_study(made, run)
    rows = [(0.5, 9.0, 1.0, 3e8), (0.6, 9.0, 1.0, 3e8), (0.4, 5.0, 2.0, 4e8), (0.3, 6.0, 2.0, 5e8)]
    for accuracy, size, nll, macs in rows:
        number = study.ask().number
        others = {"size_mb": size, "validation/nll": nll, "macs": macs}
        study.report(number, 0, accuracy / 2, others)
        study.complete(number, accuracy, 2, others=others)
    study.close()
    again = open_study(made, run)
    assert again.trial(1).values == [0.6, 9.0, 1.0, 3e8]
    assert others_by_rung(again.trial(1))[0]["macs"] == 3e8
    assert again.rungs(again.trial(1)) == {0: 0.3, 2: 0.6}
    # The smallest first; trial 0 and 3 are beaten.
    entries = pareto_entries(made, run)
    keys = ("trial", "accuracy", "size_mb", "validation/nll", "macs")
    assert [tuple(each[key] for key in keys) for each in entries] == [
        (2, 0.4, 5.0, 2.0, 4e8),
        (1, 0.6, 9.0, 1.0, 3e8),
    ]
    assert "latency_reliable" not in entries[0]
    assert [trial.number for trial in choose_finalists(again, 5)] == [1, 2]


@pytest.mark.parametrize(("metric", "value"), [("accuracy", 0.25), ("nll", 0.75)])
def test_a_rung_of_a_pretraining_is_better_the_more_neighbours_are_right(
    run: RunDirectory, metric: str, value: float
) -> None:
    study = open_study(experiment(f"search.metric=validation/{metric}"), run)
    assert study.goals.of_accuracy(0.25) == value


def test_runs_from_before_the_keys_go_on() -> None:
    from gsfl_tune.search.study.compatibility import differences

    known = study_signature(experiment())
    for key in ("search.constraints", "search.scheduler.by_objectives", "search.cost_matrix"):
        del known[key]
    assert differences(known, study_signature(experiment())) == []
    assert len(differences(known, study_signature(experiment(*CONSTRAINED)))) == 2


@pytest.mark.parametrize(
    ("changes", "early"),
    [
        ([], False),
        (["search.scheduler.by_objectives=true"], True),
        (["search.constraints=[latency_ms < 20]"], True),
        # A model learns from trials that never come to their end.
        (["search.sampler.name=gp"], True),
    ],
)
def test_the_latency_is_measured_early_where_stopped_trials_need_it(
    changes: list[str], early: bool
) -> None:
    made = experiment(
        "search.metric=validation/accuracy",
        "search.objectives=[validation/accuracy, latency_ms]",
        *changes,
    )
    assert Goals.of(made.defaults().search).early_latency is early
