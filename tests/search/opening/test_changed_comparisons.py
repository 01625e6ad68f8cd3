"""What trials are compared by after a change of the space: rungs, constraints, pretrainings."""

from __future__ import annotations

from typing import Any

import pandas
import pytest

from gsfl_tune.experiment import Experiment
from gsfl_tune.run import RunDirectory, write_text
from gsfl_tune.search import Study, choose_finalists, open_study, write_trials
from gsfl_tune.search.finals.protocol import no_finalist
from gsfl_tune.search.ray_tune.scheduler import create_asha
from gsfl_tune.search.samplers.history import SeenTrials
from gsfl_tune.search.schedulers.asha import Asha
from gsfl_tune.search.schedulers.pareto_asha import ParetoAsha
from gsfl_tune.search.study.reconcile import reconcile
from tests.search.experiments import experiment
from tests.search.opening.test_change_space import change, looks

# Rungs of 10 + 8 epochs are [5, 10, 11, 12, 14, 18], of 20 + 8 [5, 10, 20, 21, 22, 24, 28]. In a
# space with both, the first ones are [5, 10, 10, 11, 12, 14, 18].
OF_EPOCHS = (
    "search.scheduler.grace=5",
    "search.scheduler.reduction=2",
    "training.finetune.epochs=8",
)
CONSTRAINED = ("search.metric=validation/accuracy", "search.constraints=[size_mb < 10]")


def _asked(study: Study, made: Experiment, **changes: Any) -> int:
    """Hands out a configuration; double underscores stand for dots."""
    params = {key.replace("__", "."): value for key, value in changes.items()}
    study.enqueue(made.default_params() | params, "enqueue")
    asked = study.ask()
    assert asked is not None
    return asked.number


def _report(study: Study, number: int, *epochs: int) -> None:
    """Reports the epochs of a trial's first rungs as their values."""
    for k, epoch in enumerate(epochs):
        study.report(number, k, float(epoch))


def test_rungs_keep_their_epochs_where_they_are_counted_anew(run: RunDirectory) -> None:
    wide = experiment(*OF_EPOCHS, "training.head.epochs={choice: [10, 20]}")
    narrow = experiment(*OF_EPOCHS, "training.head.epochs=10")
    write_text(run.experiment_file, wide.to_yaml())
    study = open_study(wide, run)
    running = _asked(study, wide, training__head__epochs=10, model__dropout=0.0)
    _report(study, running, 5, 10, 10, 11, 12, 14)
    complete = _asked(study, wide, training__head__epochs=10, model__dropout=0.3)
    _report(study, complete, 5, 10, 10, 11, 12, 14)
    study.complete(complete, 18.0, 6)
    stopped = _asked(study, wide, training__head__epochs=20)
    _report(study, stopped, 5, 10, 20)
    study.prune(stopped, 21.0, 3)
    before = looks(study)
    study.close()

    change(run, narrow)
    study = open_study(narrow, run)
    rungs = [study.rungs(trial) for trial in study.trials()]
    assert rungs == [
        dict(enumerate([5.0, 10.0, 11.0, 12.0, 14.0])),
        dict(enumerate([5.0, 10.0, 11.0, 12.0, 14.0, 18.0])),
        {},
    ]
    # Epoch 14 was rung 5, which is the end now.
    assert reconcile(study, last_rung=5).again == [running]
    # To tpe the other one was stopped in the first epoch of its finetune stage, as some of the
    # new space are.
    memory = SeenTrials()
    memory.look(study._study, -1)
    seen = {trial.number: trial for trial in memory.history(9)}
    assert seen[stopped].intermediate_values == {0: 5.0, 1: 10.0, 2: 21.0}
    study.report(running, 5, 18.0)
    study.complete(running, 18.0)
    study.close()

    change(run, wide)
    study = open_study(wide, run)
    assert looks(study)[1:] == before[1:]
    assert study.rungs(study.trial(running)) == study.rungs(study.trial(complete))
    study.close()


def test_a_trial_taken_back_into_a_third_space_has_the_rungs_of_that_one(
    run: RunDirectory,
) -> None:
    first = experiment(*OF_EPOCHS, "training.head.epochs={choice: [10, 20]}")
    write_text(run.experiment_file, first.to_yaml())
    study = open_study(first, run)
    number = _asked(study, first, training__head__epochs=20)
    _report(study, number, 5, 10, 20, 21)
    study.close()
    change(run, experiment(*OF_EPOCHS, "training.head.epochs=10"))
    # Heads of 50 epochs have rungs at 20, 40 and 50, where one of 20 epochs has its end.
    third = experiment(*OF_EPOCHS, "training.head.epochs={choice: [20, 50]}")
    change(run, third)
    study = open_study(third, run)
    assert study.rungs(study.trial(number)) == dict(enumerate([5.0, 10.0, 20.0, 20.0, 20.0, 21.0]))
    study.close()


def test_constraints_hold_in_every_space(run: RunDirectory) -> None:
    made = experiment(*CONSTRAINED)
    write_text(run.experiment_file, made.to_yaml())
    study = open_study(made, run)
    fits, broken = {"size_mb": 5.0}, {"size_mb": 20.0}
    for latent_dim in (8, 32):
        number = _asked(study, made, model__latent_dim=latent_dim, model__dropout=0.0)
        study.complete(number, 0.9, 2, others=broken)
        number = _asked(study, made, model__latent_dim=latent_dim, model__dropout=0.3)
        study.complete(number, 0.5, 2, others=fits)
        number = _asked(study, made, model__latent_dim=latent_dim, model__dropout=0.6)
        study.prune(number, 0.6, 1, fits)
    study.close()
    after = experiment(*CONSTRAINED, "model.latent_dim={int: [8, 16], step: 8}")
    change(run, after)
    study = open_study(after, run)
    best = study.best()
    assert best is not None
    assert best.number == 1
    assert {trial.number for trial in choose_finalists(study, 9)} == {1, 2}
    # One outside broke it too, so tpe must take it for a bad one, whatever its value.
    memory = SeenTrials()
    memory.look(study._study, -1)
    order = [trial.number for trial in memory.best(9)]
    assert set(order[-2:]) == {0, 3}
    assert order[0] in (1, 4)
    study.close()


def test_a_search_without_a_finalist_names_none_from_outside(run: RunDirectory) -> None:
    made = experiment(*CONSTRAINED)
    write_text(run.experiment_file, made.to_yaml())
    study = open_study(made, run)
    number = _asked(study, made, model__latent_dim=32)
    study.complete(number, 0.9, 2, others={"size_mb": 20.0})
    study.close()
    after = experiment(*CONSTRAINED, "model.latent_dim=8")
    change(run, after)
    study = open_study(after, run)
    assert "1 x outside the changed space" in no_finalist(study)
    study.close()


def test_asha_compares_no_trial_with_one_outside_by_several_objectives(run: RunDirectory) -> None:
    goals = (
        "search.metric=validation/accuracy",
        "search.objectives=[validation/accuracy, size_mb]",
        "search.scheduler.by_objectives=true",
    )
    made = experiment(*goals)
    write_text(run.experiment_file, made.to_yaml())
    study = open_study(made, run)
    for latent_dim, accuracy in ((8, 0.5), (32, 0.9)):
        number = _asked(study, made, model__latent_dim=latent_dim)
        study.report(number, 0, accuracy, {"size_mb": 5.0})
    before = [study.rungs(trial) for trial in study.trials()]
    study.close()
    after = experiment(*goals, "model.latent_dim=8")
    change(run, after)
    study = open_study(after, run)
    asha = create_asha(study, after.defaults().search.scheduler, 3)
    assert isinstance(asha, ParetoAsha)
    # Better than the one inside, worse than the one outside.
    assert not asha.record(9, 0, study.goals.costs(0.7, {"size_mb": 5.0}))
    assert [study.rungs(trial) for trial in study.trials()] == [{0: 0.5}, {}]
    write_trials(run)
    table = pandas.read_parquet(run.trials_parquet).set_index("number")
    assert table["rungs.0"].dropna().to_dict() == {0: 0.5}
    study.close()
    change(run, made)
    study = open_study(made, run)
    assert [study.rungs(trial) for trial in study.trials()] == before
    study.close()


def test_asha_compares_no_pretraining_with_one_outside(run: RunDirectory) -> None:
    made = experiment()
    write_text(run.experiment_file, made.to_yaml())
    study = open_study(made, run)
    for latent_dim, accuracy in ((8, 0.5), (32, 0.9)):
        number = _asked(study, made, model__latent_dim=latent_dim)
        study.note_pretraining(number, 25, accuracy)
        study.report(number, -1, 1 - accuracy)
    study.close()
    after = experiment("model.latent_dim=8")
    change(run, after)
    study = open_study(after, run)
    asha = create_asha(study, after.defaults().search.scheduler, 3, [25])
    assert isinstance(asha, Asha)
    assert asha.cutoff(0, -1) == pytest.approx(0.5)
    study.close()
