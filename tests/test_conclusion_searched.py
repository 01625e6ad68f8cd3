"""What the end of a run collects of its search for findings is what the page draws."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gsfl_tune.conclusion import Conclusion
from gsfl_tune.report.charts import SearchCharts
from gsfl_tune.report.files import read_run
from gsfl_tune.run import EpochLog, RunDirectory, WorkerLog
from gsfl_tune.run.layout import EPOCHS_FILE
from gsfl_tune.run.results import write_results
from gsfl_tune.search import open_study, write_trials
from tests.report.conftest import make_results
from tests.search.experiments import YAML, experiment

HEAD, FINETUNE = 4, 12


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


def test_it_is_what_the_page_draws(run):
    results = make_results(trials={"COMPLETE": 16, "PRUNED": 8, "FAIL": 0, "RUNNING": 0})
    front = [{"trial": number, "accuracy": 0.5, "size_mb": 1.0, "params": {}} for number in (0, 1)]
    parts: dict[str, Any] = dict.fromkeys(
        ("experiment", "manifest", "workspace", "retraining"), SimpleNamespace()
    )
    conclusion = Conclusion(run=run, slots=2, notice=pytest.fail, **parts)
    found = conclusion._searched(replace(results, pareto=front))
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
