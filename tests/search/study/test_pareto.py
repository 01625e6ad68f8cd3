"""Two objectives: the front, the study that holds them, and a search that survives a kill."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import create_trial
from ray.tune.utils import flatten_dict

from gsfl_tune.experiment import ExperimentError
from gsfl_tune.experiment.search_config import SamplerConfig
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study, pareto_entries, write_trials
from gsfl_tune.search.ray_tune.searcher import StudySearcher
from gsfl_tune.search.study.handed_out import Asked
from gsfl_tune.search.study.pareto import front
from gsfl_tune.search.study.reconcile import reconcile, study_signature
from gsfl_tune.search.workers.task import Task
from gsfl_tune.search.workers.trial_worker import TrialWorker
from tests.search.experiments import experiment, searched

TWO = (
    "search.metric=validation/accuracy",
    "search.objectives=[validation/accuracy, latency_ms]",
)
LATENCY = {"latency_ms": 2.5, "runs": 30, "threads": 1, "device": "cpu"}
values = st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.4]), st.sampled_from([1.0, 2.0, 3.0]))


@settings(max_examples=40, deadline=None)
@given(st.lists(values, max_size=8), st.sampled_from(["maximize", "minimize"]))
def test_the_front_is_what_nothing_beats(found, direction):
    study = optuna.create_study(directions=[direction, "minimize"])
    study.add_trials([create_trial(values=list(each)) for each in found])
    ours = front(study.trials, direction)
    assert {tuple(t.values) for t in ours} == {tuple(t.values) for t in study.best_trials}
    assert len({tuple(t.values) for t in ours}) == len(ours)
    assert [t.values[1] for t in ours] == sorted(t.values[1] for t in ours)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "sobol", "grid"])
def test_a_study_of_two_objectives_comes_back_whole(run: RunDirectory, sampler: str) -> None:
    overrides = [*TWO, f"search.sampler.name={sampler}", "search.sampler.startup_trials=3"]
    if sampler == "grid":
        overrides.append("training.head.learning_rate={choice: [0.1, 0.01]}")
    made = experiment(*overrides)
    study = open_study(made, run)
    for number in range(8):
        asked = study.ask()
        assert asked is not None
        assert asked.number == number
        study.report(number, 0, 0.1 * number)
        if number % 3 == 2:
            study.prune(number, 0.2, 1)
        else:
            study.complete(number, 0.1 * (number % 4), 2, latency={**LATENCY, "latency_ms": number})
    study.close()
    again = open_study(made, run)
    assert again.counts() == study.counts()
    pruned = again.trial(2)
    assert (pruned.state.name, pruned.values) == ("PRUNED", None)
    assert again.rungs(pruned) == {0: pytest.approx(0.2), 1: 0.2}
    complete = again.trial(3)
    assert complete.values == [pytest.approx(0.3), 3.0]
    assert complete.user_attrs["latency"]["threads"] == 1
    assert again.rungs(complete)[2] == pytest.approx(0.3)
    assert again.best().number == 3
    assert [t.number for t in front(again.trials(), again.direction)] == [0, 1, 3]
    again.close()
    # Optuna itself reads it, and so does its dashboard.
    storage = JournalStorage(JournalFileBackend(str(run.journal)))
    plain = optuna.load_study(study_name="search", storage=storage)
    assert [d.name for d in plain.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert {t.number for t in plain.best_trials} >= {0, 1, 3}


def test_a_trial_without_its_latency_is_taken_up_again(run: RunDirectory) -> None:
    study = open_study(experiment(*TWO), run)
    study.ask()
    study.ask()
    study.report(0, 2, 0.5)
    assert reconcile(study, 2).again == [0, 1]
    study.complete(0, 0.5, 2)
    assert study.trial(0).user_attrs["reason"] == "its latency was not measured"
    study.complete(1, math.nan, 2, latency=LATENCY)
    assert study.trial(1).state.name == "FAIL"


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["search.objectives=[latency_ms]"], "found [latency_ms], allowed two to 4"),
        (
            ["search.objectives=[validation/nll, latency_ms]"],
            "nll as the first, allowed one of val",
        ),
        (
            ["search.objectives=[validation/top5, speed]"],
            "found speed as number 2, allowed one of l",
        ),
        (["search.objectives=[validation/top5, macs, macs]"], "found macs twice, allowed once"),
        (["search.objectives=[validation/top5, latency_ms]"], "allowed validation/top5"),
        (["search.scheduler.by_objectives=true"], "found true without search.objectives"),
        ([*TWO, "search.sampler.name=cmaes"], "found cmaes with several objectives, allowed tpe"),
        (["search.objectives=fast"], "allowed a list of texts or null"),
    ],
)
def test_other_objectives_are_refused(overrides, complaint):
    with pytest.raises(ExperimentError) as caught:
        experiment(*overrides)
    assert complaint in str(caught.value)


def test_the_metric_is_the_first_objective():
    text = """
name: two
data: {source: typefaces}
search: {objectives: [validation/top5, latency_ms]}
"""
    assert experiment(text=text).defaults().search.metric == "validation/top5"


def test_runs_of_one_objective_keep_their_fingerprint():
    assert "search.objectives" not in study_signature(experiment())
    assert "latency_ms" in study_signature(experiment(*TWO))["search.objectives"]


def test_what_a_worker_measures_reaches_the_study(run: RunDirectory, cache_dir: Path) -> None:
    made = experiment(*TWO, "training.head.epochs=1", "search.trials=1")
    study = open_study(made, run)

    def task(asked: Asked) -> Task:
        return Task(
            number=asked.number,
            config=made.configure(asked.params),
            directory=run.trial("search", asked.number),
            interrupt=run.interrupt_file,
            metric=study.metric,
            others=list(study.goals.others),
            rungs=[1],
            cache_dir=cache_dir,
        )

    searcher = StudySearcher(study, 1, task)
    handed = searcher.suggest("a")
    assert isinstance(handed, dict)
    result = TrialWorker(Task.model_validate_json(handed["task"])).step()
    # As Ray hands results on.
    searcher.on_trial_complete("a", flatten_dict(result))
    trial = study.trial(0)
    assert trial.state.name == "COMPLETE", trial.user_attrs
    assert trial.values[0] == result["validation/accuracy"]
    assert trial.values[1] == trial.user_attrs["latency"]["latency_ms"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_tests")
def test_a_search_finds_a_front_and_goes_on_where_it_was(
    run: RunDirectory, two_slots, cache_dir: Path
) -> None:
    made = experiment(*TWO, "search.trials=6", "training.head.epochs=2")
    options = {"resources": two_slots, "cache_dir": cache_dir, "feature_dim": 512}
    searched(made, run, trials=3, **options)
    outcome = searched(made, run, **options)
    study = outcome.study
    assert study.created() == 6
    complete = [t for t in study.trials() if t.state.name == "COMPLETE"]
    assert len(complete) >= 2
    for trial in complete:
        assert 0 <= trial.values[0] <= 1
        assert trial.values[1] == trial.user_attrs["latency"]["latency_ms"] > 0
        assert trial.user_attrs["latency"]["threads"] == two_slots.threads
        assert trial.user_attrs["latency"]["runs"] >= 30
    write_trials(run)
    entries = pareto_entries(made, run)
    assert [entry["trial"] for entry in entries] == [
        t.number for t in front(study.trials(), "maximize")
    ]
    assert entries[0]["config"]["name"] == "tiny"
    assert all(entry["latency_reliable"] in (True, False) for entry in entries)
    import pandas

    table = pandas.read_parquet(run.trials_parquet).set_index("number")
    for trial in complete:
        assert table.loc[trial.number, "latency_ms"] == trial.values[1]
        assert table.loc[trial.number, "value"] == trial.values[0]
    # The report's rungs: of trials that ASHA stopped they are all there is.
    for trial in study.trials():
        row = table.loc[trial.number].filter(like="rungs.").dropna()
        assert {int(name[6:]): value for name, value in row.items()} == study.rungs(trial) != {}


def test_samplers_of_two_objectives_repeat(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        study = open_study(experiment(*TWO), RunDirectory(tmp_path / name))
        assert SamplerConfig().name == "tpe"
        for number in range(14):
            asked = study.ask()
            assert asked is not None
            latency = {**LATENCY, "latency_ms": 1 + number % 5}
            study.complete(number, (7 * number % 11) / 11, 2, latency=latency)
        found.append([trial.params for trial in study.trials()])
        study.close()
    assert found[0] == found[1]


@pytest.mark.parametrize("order", [1, -1])
def test_of_equal_trials_the_first_one_is_on_the_front(run: RunDirectory, order: int) -> None:
    study = open_study(experiment(*TWO), run)
    for _ in range(4):
        asked = study.ask()
        latency = {**LATENCY, "latency_ms": 5.0}
        study.complete(asked.number, 0.5, 2, latency=latency)
    trials = study.trials()[::order]
    assert [trial.number for trial in front(trials, "maximize")] == [0]
    study.close()
