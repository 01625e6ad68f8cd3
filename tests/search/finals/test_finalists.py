"""Which trials are trained again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.run.layout import EPOCHS_FILE
from gsfl_tune.search import Prices, Study, choose_finalists, curves_of, open_study
from tests.search.experiments import experiment


def _train(study: Study, run: RunDirectory, curves: Mapping[int, Sequence[float]]) -> None:
    """Begins trials with two rungs after two epochs, and an accuracy for each epoch."""
    for number, curve in curves.items():
        study.ask()
        for rung, value in enumerate(curve[:2]):
            study.report(number, rung, value)
        log = EpochLog(run.trial("search", number) / EPOCHS_FILE)
        for epoch, value in enumerate(curve, 1):
            log.append({"epoch": epoch, "validation/accuracy": value})


def test_the_best_of_those_that_came_to_their_end(run: RunDirectory) -> None:
    study = open_study(experiment("search.metric=validation/accuracy"), run)
    for value in (0.2, 0.7, 0.5, 0.6):
        study.complete(study.ask().number, value)  # type: ignore[union-attr]
    study.prune(study.ask().number, 0.9, 0)  # type: ignore[union-attr]
    assert [trial.number for trial in choose_finalists(study, 3)] == [1, 3, 2]


def test_where_they_are_too_few_those_that_were_stopped_latest_join(run: RunDirectory) -> None:
    study = open_study(experiment("search.metric=validation/accuracy"), run)
    for _ in range(5):
        study.ask()
    study.complete(0, 0.7)
    study.prune(1, 0.9, 0)
    study.report(2, 0, 0.3)
    study.prune(2, 0.5, 1)
    study.report(3, 0, 0.3)
    study.prune(3, 0.6, 1)
    study.fail(4, "broken")
    assert [trial.number for trial in choose_finalists(study, 4)] == [0, 3, 2, 1]
    assert [trial.number for trial in choose_finalists(study, 2)] == [0, 3]


def test_what_was_better_at_the_same_rung_when_time_was_up_comes_first(run: RunDirectory) -> None:
    study = open_study(experiment("search.metric=validation/accuracy"), run)
    curves = {0: (0.6, 0.7, 0.8), 1: (0.5, 0.65, 0.75), 2: (0.4, 0.78), 3: (0.9,), 4: (0.3, 0.68)}
    for number, curve in curves.items():
        study.ask()
        for rung, value in enumerate(curve):
            study.report(number, rung, value)
    study.complete(0, 0.85)
    study.complete(1, 0.84)
    study.cut(2, "time")  # ahead of both at rung 1
    study.prune(3, 0.9, 0)  # the first rung says too little
    study.cut(4, "time")  # ahead of one
    assert [trial.number for trial in choose_finalists(study, 5)] == [2, 0, 4, 1, 3]
    assert [trial.number for trial in choose_finalists(study, 2)] == [2, 0]


def test_what_was_better_after_as_many_epochs_when_time_was_up_comes_first(
    run: RunDirectory,
) -> None:
    study = open_study(experiment("search.metric=validation/accuracy"), run)
    curves = {0: (0.6, 0.7, 0.71, 0.8), 1: (0.6, 0.7, 0.78), 2: (0.6, 0.7, 0.70), 3: (0.6, 0.6)}
    _train(study, run, curves)
    study.complete(0, 0.8)
    for number in (1, 2, 3):
        study.cut(number, "time")  # level at their last rung, or behind
    found = choose_finalists(study, 4, curves_of(study, run))
    assert [trial.number for trial in found] == [1, 0, 2, 3]
    assert [trial.number for trial in choose_finalists(study, 4)] == [0, 1, 2, 3]


def test_an_epoch_that_was_lucky_does_not_come_before_a_better_end(run: RunDirectory) -> None:
    """The best trial is best for its luck at the end too: what it gained, others may not."""
    study = open_study(experiment("search.metric=validation/accuracy"), run)
    curves = {
        0: (0.60, 0.80, 0.86, 0.90),
        1: (0.60, 0.80, 0.87, 0.88),
        2: (0.60, 0.80, 0.86, 0.87),
        3: (0.60, 0.80, 0.88),  # ahead of the best after as many epochs
    }
    _train(study, run, curves)
    for number in range(3):
        study.complete(number, curves[number][-1])
    study.cut(3, "time")
    found = choose_finalists(study, 4, curves_of(study, run))
    assert [trial.number for trial in found] == [0, 3, 1, 2]  # 0.88 and the gain of most, 0.01


def test_what_was_stopped_early_does_not_come_before_what_ended(run: RunDirectory) -> None:
    study = open_study(experiment("search.metric=validation/accuracy"), run)
    curves = {0: (0.2, 0.2, 0.3, 0.4), 1: (0.3, 0.35), 2: (0.3, 0.1, 0.35)}
    for number, curve in curves.items():
        study.ask()
        for rung, value in enumerate(curve):
            study.report(number, rung, value)
    study.complete(0, 0.4)
    for number in (1, 2):
        study.cut(number, "time")
    assert [trial.number for trial in choose_finalists(study, 3)] == [2, 0, 1]


def test_for_a_metric_that_is_minimised_the_smallest_stopped_one_is_the_best(
    run: RunDirectory,
) -> None:
    study = open_study(experiment("search.metric=validation/nll"), run)
    for value in (0.4, 0.2, 0.3):
        study.prune(study.ask().number, value, 0)  # type: ignore[union-attr]
    assert [trial.number for trial in choose_finalists(study, 2)] == [1, 2]


def test_no_configuration_is_named_twice_whatever_was_drawn_for_what_is_inactive(
    run: RunDirectory,
) -> None:
    # CMA-ES draws every parameter, also the groups of a plain head.
    study = open_study(experiment("search.metric=validation/accuracy"), run)
    first = {"model.head": "plain", "model.latent_dim": 8, "model.dropout": 0.3,
             "training.head.learning_rate": 1e-3}  # fmt: skip
    study.recreate({**first, "model.groups.count": 2})
    study.recreate({**first, "model.groups.count": 4})
    study.recreate({**first, "model.dropout": 0.0})
    for number, value in enumerate((0.5, 0.6, 0.4)):
        study.complete(number, value)
    assert [trial.number for trial in choose_finalists(study, 3)] == [1, 2]


def test_no_finalists_where_nothing_came_to_a_rung(run: RunDirectory) -> None:
    study = open_study(experiment(), run)
    study.fail(study.ask().number, "broken")  # type: ignore[union-attr]
    study.cut(study.ask().number, "time")  # type: ignore[union-attr]
    assert choose_finalists(study, 3) == []


def test_what_costs_much_more_and_is_hardly_better_is_not_trained_again(run: RunDirectory) -> None:
    """A trial three times as dear has to be better by a standard error: 0.03 of 100 images."""
    study = open_study(experiment("search.metric=validation/accuracy"), run)
    trials = [(0.92, 30.0), (0.90, 10.0), (0.915, 100.0), (0.96, 100.0), (0.85, 1.0), (0.84, 90.0)]
    for value, seconds in trials:
        number = study.ask().number  # type: ignore[union-attr]
        study.complete(number, value)
        log = EpochLog(run.trial("search", number) / EPOCHS_FILE)
        for epoch in (1, 2):
            log.append({"epoch": epoch, "validation/accuracy": value, "seconds": seconds / 2})
    said: list[str] = []
    prices = Prices.measured(study, run, 100, said.append)
    chosen = choose_finalists(study, 6, None, prices)
    # Of 0 and 2 the cheaper trial 1 is as good; 3 is better than all; 5 is worse than the cheap 4.
    assert [trial.number for trial in chosen] == [3, 1, 4]
    assert sorted(text.split(" is ")[0] for text in said) == [
        "trial 0 (0.920)",
        "trial 2 (0.915)",
        "trial 5",
    ]
    assert (
        "trial 0 (0.920) is better than trial 1 (0.900) by less than a standard error (0.027)"
        in said[0]
    )
    assert "costs 3.0 times as much: it is not trained again" in said[0]
    # Of ten thousand images the same differences are more than chance.
    many = choose_finalists(study, 6, None, Prices.measured(study, run, 10_000, said.append))
    assert [trial.number for trial in many] == [3, 0, 1, 4]  # 0 is better than 2, and cheaper
    assert [t.number for t in choose_finalists(study, 6)] == [3, 0, 2, 1, 4, 5]


def test_means_over_all_folds_come_before_means_over_fewer(run: RunDirectory) -> None:
    study = open_study(experiment("search.metric=validation/accuracy", "search.folds=3"), run)
    means = {0: (0.6, 0.7, 0.7, 0.7), 1: (0.6, 0.8, 0.6, 0.72), 2: (0.5, 0.6, 0.75)}
    for number, values in means.items():
        study.ask()
        for rung, value in enumerate(values):
            if rung:
                study.note_replicate(number, rung, {"validation/accuracy": value})
            study.report(number, rung, value)
        log = EpochLog(run.trial("search", number) / EPOCHS_FILE)
        for epoch in (1, 2):
            # By the first training alone the last one is ahead of all.
            log.append({"epoch": epoch, "validation/accuracy": 0.1 + number})
    study.complete(0, 0.7, 3)
    study.complete(1, 0.72, 3)
    study.cut(2, "time")  # ahead of both with as many trainings
    assert [t.number for t in choose_finalists(study, 3, curves_of(study, run))] == [1, 0, 2]
    study.note_replicate(0, 3, {"validation/accuracy": 0.0})  # it has ended
    assert study.trial(0).user_attrs["replicates"]["3"] == {"validation/accuracy": 0.7}
