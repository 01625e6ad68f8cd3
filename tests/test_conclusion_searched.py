"""What the end of a run collects of its search for findings is what the page draws."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gsfl_tune.conclusion import Conclusion
from gsfl_tune.evidence import Searched
from gsfl_tune.experiment import Experiment
from gsfl_tune.report import write_report
from gsfl_tune.report.charts import SearchCharts
from gsfl_tune.report.files import read_run
from gsfl_tune.run import EpochLog, RunDirectory, WorkerLog
from gsfl_tune.run.layout import EPOCHS_FILE
from gsfl_tune.run.results import write_results
from gsfl_tune.search import Study, count_trials, open_study, write_trials
from tests.evidence.test_findings import codes, world
from tests.report.conftest import make_results
from tests.search.experiments import YAML, experiment
from tests.search.opening.test_change_space import change

HEAD, FINETUNE = 4, 12
TWO = ("search.metric=validation/accuracy", "search.objectives=[validation/accuracy, size_mb]")


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    """A search of 24 trials, a third of them stopped at a rung, with two busy slots."""
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.experiment_file.write_text(YAML)
    study = open_study(experiment(), run)
    workers = WorkerLog(run)
    for number in range(24):
        asked = study.ask()
        assert asked is not None
        value = float(asked.params["model.dropout"]) + 0.01 * number
        stopped = number % 3 == 2
        log = EpochLog(run.trial("search", number) / EPOCHS_FILE)
        for epoch in range(1, HEAD + (0 if stopped else FINETUNE) + 1):
            stage = "head" if epoch <= HEAD else "finetune"
            log.append({"epoch": epoch, "stage": stage, "validation/nll": value + 1 / epoch})
        begin = 1000.0 * (number // 2)
        workers.append({
            "study": "search", "trial": number, "rung": 0, "epoch": HEAD, "node": "here",
            "worker": number % 2, "gpus": "", "begin": begin, "end": begin + 300,
        })  # fmt: skip
        if stopped:
            study.prune(number, value, 0)
        else:
            study.complete(number, value, 0)
    write_trials(run)
    return run


def searched(run: RunDirectory, **changes: Any) -> Searched:
    """What the end of a run collects, of its present files."""
    write_trials(run)
    parts: dict[str, Any] = dict.fromkeys(
        ("experiment", "manifest", "workspace", "retraining"), SimpleNamespace()
    )
    conclusion = Conclusion(run=run, slots=2, notice=pytest.fail, **parts)
    changes = {"trials": count_trials(run), "metric": "validation/accuracy", **changes}
    return conclusion._searched(make_results(**changes))


def test_it_is_what_the_page_draws(run):
    results = make_results(trials={"COMPLETE": 16, "PRUNED": 8, "FAIL": 0, "RUNNING": 0})
    front = [{"trial": number, "accuracy": 0.5, "size_mb": 1.0, "params": {}} for number in (0, 1)]
    found = searched(run, metric=results.metric, pareto=front)
    # The last stage of the trials that came to their end; those that were stopped are none.
    assert [len(curve) for curve in found.curves] == [FINETUNE] * 16
    np.testing.assert_allclose(np.diff(found.curves[0]), np.diff([1 / e for e in range(5, 17)]))
    assert found.sign == -1
    assert len(found.values) == 16
    assert found.front == 2
    write_results(run.results_file, results)
    page = SearchCharts(read_run(run.path))
    assert page.timeline is not None
    assert found.work is not None
    assert found.work.busy == page.timeline.busy < 0.5
    assert (found.work.slots, found.work.seconds) == (2, page.timeline.seconds)
    (_, drawn) = page.importances[-1]
    assert found.explained is not None
    assert found.explained.explained == drawn.explained
    assert found.explained.shares == drawn.shares


def begun(run: RunDirectory, made: Experiment) -> Study:
    run.path.mkdir()
    run.experiment_file.write_text(made.to_yaml())
    return open_study(made, run)


def test_rungs_of_several_objectives_are_those_that_the_page_draws(tmp_path):
    """Optuna keeps no intermediate values of them, so no finding was told of their rungs."""
    run = RunDirectory(tmp_path / "run")
    study = begun(run, experiment(*TWO))
    for number in range(10):
        study.ask()
        size = {"size_mb": 1.0 + number}
        study.report(number, 0, 0.9 - 0.01 * number, size)
        study.report(number, 2, 0.5 + 0.01 * number, size)
        study.complete(number, 0.5 + 0.01 * number, 2, others=size)
    found = searched(run)
    page = SearchCharts(read_run(run.path))
    assert found.rungs == [trial.rungs for trial in page.trials]
    assert "rungs_do_not_agree" in codes(world(), searched=found)


def test_a_trial_that_cannot_win_is_not_the_best_value(tmp_path):
    run = RunDirectory(tmp_path / "run")
    constrained = ("search.metric=validation/accuracy", "search.constraints=[size_mb < 10]")
    study = begun(run, experiment(*constrained))
    for number in range(21):
        study.ask()
        value, size = (0.9, 20.0) if number == 0 else (0.5 + 0.01 * number, 5.0)
        study.complete(number, value, 2, others={"size_mb": size})
    found = searched(run)
    np.testing.assert_allclose(found.values, [0.5 + 0.01 * number for number in range(1, 21)])
    told = codes(world(), searched=found)
    assert "still_improving" in told
    assert "best_from_the_start" not in told


@pytest.mark.parametrize("broke", [0, 4])
def test_a_trial_outside_a_changed_space_has_not_failed(tmp_path, broke):
    run = RunDirectory(tmp_path / "run")
    narrow = "search.sampler.name=random", "model.latent_dim={int: [8, 16], step: 8}"
    study = begun(run, experiment(narrow[0]))
    for number in range(20):
        # Configurations that are there already are not added again.
        rate = {"training.head.learning_rate": 1e-3 * (1 + number)}
        params = rate | {"model.latent_dim": 32 if number < 8 else 16}
        study.enqueue(experiment().default_params() | params, "enqueue")
        study.ask()
        if number >= 20 - broke:
            study.fail(number, "it broke")
        else:
            study.complete(number, 0.5, 2)
    study.close()
    change(run, experiment(*narrow))
    assert searched(run).states == {
        "COMPLETE": 12 - broke, "PRUNED": 0, "FAIL": broke, "RUNNING": 0,
    }  # fmt: skip
    told = codes(world(), searched=searched(run))
    assert ("many_failed" in told) == bool(broke)
    page = write_report(run.path).read_text()
    assert ("4 of 12 trials failed: see the reasons" in page) == bool(broke)
    assert " of 20 trials failed" not in page
