"""A run goes on in another space: who stays a trial, who becomes history."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import RunDirectory, write_text
from gsfl_tune.search import Study, choose_finalists, open_study, refuse_changes
from gsfl_tune.search.opening.change_space import change_space, changed_lines
from gsfl_tune.search.samplers.history import OUTSIDE, SeenTrials
from gsfl_tune.search.study.first_trials import enqueue_first_trials
from tests.search.experiments import experiment

TRIALS = 12


def begun(run: RunDirectory, made: Experiment, trials: int = TRIALS) -> Study:
    """Finished trials of a space: every third complete, one failed, the last two running."""
    write_text(run.experiment_file, made.to_yaml())
    study = open_study(made, run)
    for number in range(trials):
        study.ask()
        study.report(number, 0, 1.0 + 0.1 * number)
        if number >= trials - 2:
            continue
        if number == 4:
            study.fail(number, "it broke")
        elif number % 3 == 0:
            study.complete(number, 0.1 * (number + 1), 2)
        else:
            study.prune(number, 0.5, 1)
    return study


def change(run: RunDirectory, after: Experiment) -> list[str]:
    said: list[str] = []
    change_space(run, Experiment.load(run.experiment_file), after, said.append)
    write_text(run.experiment_file, after.to_yaml())
    (text,) = said
    return text.splitlines()


def looks(study: Study) -> list[tuple[int, str, dict, list | None, dict]]:
    return [
        (t.number, t.state.name, t.params, t.values, t.intermediate_values) for t in study.trials()
    ]


def test_a_narrower_space_keeps_the_trials_inside_it(run: RunDirectory) -> None:
    old = begun(run, experiment("search.sampler.name=random"))
    before = {t.number: t for t in old.trials()}
    old.close()
    length = run.journal.stat().st_size
    head = run.journal.read_bytes()
    after = experiment("search.sampler.name=random", "model.latent_dim={int: [8, 16], step: 8}")
    with pytest.raises(UserError, match="--change-space to keep what still fits"):
        refuse_changes(run, after)
    said = change(run, after)
    assert any("model.latent_dim: was int 8 to 32" in line for line in said)
    inside = {n for n, t in before.items() if t.params["model.latent_dim"] <= 16}
    assert 0 < len(inside) < TRIALS
    assert f"search: {len(inside)} of {TRIALS} trials are trials of the new space" in said[-1]
    # What a storage has of the journal stays as it is.
    assert run.journal.read_bytes()[:length] == head
    study = open_study(after, run)
    assert [t.number for t in study.trials()] == list(range(TRIALS))
    for trial in study.trials():
        was = before[trial.number]
        if trial.number in inside:
            assert (trial.state, trial.params, trial.values) == (was.state, was.params, was.values)
            assert trial.intermediate_values == was.intermediate_values
            assert trial.datetime_start == was.datetime_start
        else:
            assert trial.state.name == "FAIL"
            assert "allowed is 8 to 16" in trial.user_attrs["reason"]
            assert study.rungs(trial) == {}
    assert {t.number for t in study.ranking()} <= inside
    assert {t.number for t in choose_finalists(study, TRIALS)} <= inside
    assert set(study.running()) == inside & {TRIALS - 2, TRIALS - 1}
    # It goes on, under the next number, and is resumed like any other.
    for number in range(TRIALS, TRIALS + 3):
        asked = study.ask()
        assert asked.number == number
        assert asked.params["model.latent_dim"] <= 16
        study.complete(number, 0.4, 2)
    study.close()
    refuse_changes(run, after)
    assert changed_lines(run, after) == []
    again = open_study(after, run)
    assert looks(again) == looks(study)
    again.close()
    # Optuna itself reads it, and so does its dashboard.
    storage = JournalStorage(JournalFileBackend(str(run.journal)))
    assert optuna.study.get_all_study_names(storage) == ["search"]
    assert len(optuna.load_study(study_name="search", storage=storage).trials) == TRIALS + 3


@pytest.mark.parametrize(
    "sampler", ["tpe", "random", pytest.param("gp", marks=pytest.mark.slow), "cmaes", "sobol"]
)
def test_what_optuna_would_refuse_is_a_space_too(run: RunDirectory, sampler: str) -> None:
    """Other choices, a kind of number, a scale, parameters more and less: any sampler goes on."""
    name = f"search.sampler.name={sampler}"
    begun(run, experiment(name, "search.sampler.startup_trials=4")).close()
    after = experiment(
        name,
        "search.sampler.startup_trials=4",
        "model.head={choice: [gsfl, plain]}",
        "model.latent_dim={choice: [8, 16, 24, 32, 64]}",
        "model.dropout=0.3",
        "training.head.learning_rate={float: [1.0e-4, 1.0e-1]}",
        "loss.class_center={choice: [0.005, 0.1]}",
    )
    said = change(run, after)
    study = open_study(after, run)
    inside = [t for t in study.trials() if OUTSIDE not in t.user_attrs]
    # The default of a parameter that is new is what all trials had.
    assert all(t.params.get("loss.class_center", 0.005) == 0.005 for t in inside)
    assert all("model.dropout" not in t.params for t in inside)
    assert any("model.dropout" in line for line in said)
    assert 0 < len(inside) < TRIALS
    for number in range(TRIALS, TRIALS + 8):
        asked = study.ask()
        after.configure(asked.params)
        study.complete(number, 0.3 + 0.01 * number, 2)
    study.close()


def test_tpe_learns_from_what_is_outside_and_nobody_else(run: RunDirectory) -> None:
    begun(run, experiment()).close()
    after = experiment("model.latent_dim={int: [8, 16], step: 8}")
    said = change(run, after)
    study = open_study(after, run)
    outside = [t for t in study.trials() if OUTSIDE in t.user_attrs]
    learned = [t for t in outside if t.user_attrs[OUTSIDE]["history"]]
    assert f"(tpe learns from {len(learned)} of them)" in said[-1]
    memory = SeenTrials()
    memory.look(study._study, -1)
    seen = {trial.number: trial for trial in memory.history(100)}
    done = {t.number for t in study.trials() if t.state.name in ("COMPLETE", "PRUNED")}
    assert set(seen) == done | {t.number for t in learned}
    assert learned
    for trial in learned:
        assert "model.latent_dim" not in seen[trial.number].params
        assert "training.head.learning_rate" in seen[trial.number].params
        # For a grid, or whoever looks for repeats, it was never there.
        assert trial.params == {}
    study.close()


def test_after_a_change_of_what_was_fixed_nothing_can_be_learned(run: RunDirectory) -> None:
    begun(run, experiment()).close()
    after = experiment("training.head.epochs=8")
    said = change(run, after)
    assert "  training.head.epochs: was 4, found 8" in said
    assert f"0 of {TRIALS} trials are trials of the new space" in said[-1]
    assert "(tpe learns from 0 of them)" in said[-1]
    study = open_study(after, run)
    assert choose_finalists(study, 3) == []
    assert study.best() is None
    study.close()


def test_a_wider_space_takes_trials_back(run: RunDirectory) -> None:
    made = experiment("search.sampler.name=random")
    old = begun(run, made)
    before = looks(old)
    attributes = [dict(t.user_attrs) for t in old.trials()]
    old.close()
    change(run, experiment("search.sampler.name=random", "model.latent_dim=8"))
    change(run, made)
    study = open_study(made, run)
    assert looks(study) == before
    assert [dict(t.user_attrs) for t in study.trials()] == attributes
    assert len(study._study.user_attrs["changes"]) == 2
    study.close()


def test_a_constant_may_become_a_parameter(run: RunDirectory) -> None:
    begun(run, experiment()).close()
    after = experiment("loss.class_center={float: [1e-4, 1e-1], log: true}")
    change(run, after)
    study = open_study(after, run)
    for trial in study.trials():
        assert OUTSIDE not in trial.user_attrs
        assert trial.params["loss.class_center"] == 0.005
    study.close()


def test_enqueued_configurations_wait_on_where_they_still_fit(run: RunDirectory) -> None:
    made = experiment(
        "search.enqueue=[{model.latent_dim: 8, model.head: plain}, {model.latent_dim: 32}]"
    )
    write_text(run.experiment_file, made.to_yaml())
    study = open_study(made, run)
    enqueue_first_trials(study, made)
    assert study.counts()["WAITING"] == 3
    study.close()
    # As a search would be that was told of no trials of its own any more.
    after = experiment(
        "search.enqueue=[{model.latent_dim: 8, model.head: plain}, {model.latent_dim: 32}]",
        "model.latent_dim={int: [8, 24], step: 8}",
    )
    change(run, after)
    study = open_study(after, run)
    assert [t.state.name for t in study.trials()] == ["WAITING", "FAIL", "WAITING"]
    asked = study.ask()
    assert asked.number == 0
    assert asked.protected
    assert asked.params["model.latent_dim"] == 8
    assert asked.params["model.head"] == "plain"
    study.close()


@pytest.mark.parametrize(
    "override", ["search.metric=validation/accuracy", "search.scheduler.grace=2", "search.seed=9"]
)
def test_the_search_itself_stays_what_it_is(run: RunDirectory, override: str) -> None:
    begun(run, experiment(), trials=3).close()
    content = run.journal.read_bytes()
    with pytest.raises(UserError) as refused:
        changed_lines(run, experiment(override, "model.dropout=0.3"))
    path = override.partition("=")[0]
    assert "changes of the search itself" in str(refused.value)
    assert "(data, model, loss, pretrain, training)" in str(refused.value)
    assert f"  {path}: was" in str(refused.value)
    assert "model.dropout" not in str(refused.value)
    assert run.journal.read_bytes() == content


def test_another_experiment_in_the_run_directory_is_no_ground(run: RunDirectory) -> None:
    begun(run, experiment(), trials=3).close()
    content = run.journal.read_bytes()
    with pytest.raises(UserError, match="not the experiment that the run was begun with"):
        change_space(run, experiment("model.dropout=0.6"), experiment("model.dropout=0.3"), print)
    assert run.journal.read_bytes() == content
    assert [path.name for path in Path(run.path).glob("study.journal*")] == ["study.journal"]
