"""Folds of trials whose node does not see the run directory: what is left is in the storage."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pandas
import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.storage import DriverCopy, RunAddress
from gsfl_tune.search import open_study
from gsfl_tune.search.ray_tune.rung_epochs import largest_timeline
from gsfl_tune.search.ray_tune.storage_watch import tell_finished
from gsfl_tune.search.study.reconcile import reconcile
from gsfl_tune.search.workers.replicates import Replicates, rows_of
from gsfl_tune.search.workers.task import Task
from gsfl_tune.search.workers.trial_worker import TrialWorker
from gsfl_tune.training.timeline import Timeline
from tests.search.experiments import experiment, searched, states
from tests.search.ray_tune.test_stored import _other_node
from tests.search.workers.test_trial_worker import _step, _steps

FOLDS = ("search.folds=3", "search.sampler.name=random", "training.head.epochs=2")
NLL = "validation/nll"


@pytest.fixture
def away(storage: DriverCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunAddress:
    _other_node(tmp_path, monkeypatch, "node-1")
    return storage.address.model_copy(update={"token": "of another machine", "patience": 0.5})


def _task(run: RunDirectory, place: RunAddress, cache_dir: Path, **changes: Any) -> Task:
    known: dict[str, Any] = {
        "number": 7,
        "config": experiment("model.head=plain", *FOLDS).defaults(),
        "directory": run.trial("search", 7),
        "interrupt": run.interrupt_file,
        "metric": NLL,
        "rungs": [1, 2],
        "cache_dir": cache_dir,
        "save_seconds": 0,
        "storage": place,
        "replicates": Replicates(folds=3),
    }
    return Task(**{**known, **changes})


def _log(storage: DriverCopy, name: str) -> list[dict[str, Any]]:
    data = storage.storage.get(f"{name}/epochs.jsonl") or b""
    return [json.loads(line) for line in data.splitlines()]


def test_a_fold_goes_on_where_another_node_left_it(
    run: RunDirectory,
    away: RunAddress,
    storage: DriverCopy,
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = _task(run, away, cache_dir)
    alone = task.model_copy(update={"storage": None, "directory": tmp_path / "alone"})
    whole = _steps(TrialWorker(alone))
    first = TrialWorker(task)
    rows = [json.loads(each["replicate"]) for each in (_step(first), _step(first))[1:]]
    # The node is lost after the first epoch of the second fold.
    cut = task.model_copy(update={"reported": 2, "finished": rows, "rungs": [1, 1]})
    lost = TrialWorker(cut)
    lost.step()
    before = _log(storage, "trials/7/replicate-2")
    assert len(before) == 1
    _other_node(tmp_path, monkeypatch, "node-2")
    again = task.model_copy(update={"reported": 2, "finished": rows, "timeout": 1e6})
    results = _steps(TrialWorker(again))
    assert results == whole[2:]
    second = _log(storage, "trials/7/replicate-2")
    assert second[:1] == before
    assert [record["epoch"] for record in second] == [1, 2]
    names = storage.storage.list("trials/7")
    # What is kept of the folds: their epochs, and the checkpoint of the first and the last one.
    assert {name for name in names if name.endswith("checkpoint.pt")} == {
        "trials/7/checkpoint.pt",
        "trials/7/replicate-3/checkpoint.pt",
    }
    assert not run.trials().exists()
    assert [path for path in (tmp_path / "node-2").rglob("*") if path.is_file()] == []


def test_tensorboard_data_of_the_first_fold_ends_with_the_trial(
    run: RunDirectory, away: RunAddress, storage: DriverCopy, cache_dir: Path
) -> None:
    _steps(TrialWorker(_task(run, away, cache_dir)))
    names = [name for name in storage.storage.list("trials/7") if "events.out" in name]
    assert names
    assert not any("replicate" in name for name in names)


def test_the_time_limit_counts_what_other_nodes_trained(
    run: RunDirectory, away: RunAddress, storage: DriverCopy, cache_dir: Path
) -> None:
    first = TrialWorker(_task(run, away, cache_dir))
    rows = [json.loads(each["replicate"]) for each in (_step(first), _step(first))[1:]]
    first.close()
    log = _log(storage, "trials/7")
    log[0]["seconds"] = 1e6
    text = "".join(json.dumps(record) + "\n" for record in log)
    storage.storage.put("trials/7/epochs.jsonl", text.encode())
    late = _task(run, away, cache_dir, reported=2, finished=rows, timeout=1e5)
    assert TrialWorker(late).step()["failed"].startswith("longer than search.trial_timeout")


def test_folds_that_the_journal_does_not_know_are_told_from_the_storage(
    run: RunDirectory, away: RunAddress, storage: DriverCopy, cache_dir: Path
) -> None:
    tiny = experiment(*FOLDS)
    study = open_study(tiny, run)
    known: list[list[dict[str, Any]]] = []
    # The first comes to its end; the second begins its third fold; the third ends its first one.
    for steps in (4, 4, 2):
        asked = study.ask()
        assert asked is not None
        config = tiny.configure(asked.params)
        rungs = Timeline.of(config).rungs(largest_timeline(tiny), reduction=3)
        task = _task(
            run,
            away,
            cache_dir,
            number=asked.number,
            config=config,
            directory=run.trial("search", asked.number),
            rungs=[rung.epoch for rung in rungs],
        )
        worker = TrialWorker(task)
        known.append([_step(worker) for _ in range(steps)])
        worker.close()
    log = storage.storage.get("trials/1/replicate-3/epochs.jsonl") or b""
    storage.storage.put("trials/1/replicate-3/epochs.jsonl", log.splitlines(keepends=True)[0])
    assert tell_finished(study, tiny, run, storage) == [0]
    trials = study.trials()
    values = [{each["rung"]: each[NLL] for each in results} for results in known]
    assert trials[0].state.name == "COMPLETE"
    assert trials[0].value == values[0][3]
    assert dict(trials[0].intermediate_values) == values[0]
    assert [row[NLL] for row in rows_of(trials[0]).values()] == [
        _log(storage, name)[-1][NLL]
        for name in ("trials/0", "trials/0/replicate-2", "trials/0/replicate-3")
    ]
    # The third fold had begun, so the scheduler had let the trial go on behind the second one.
    assert dict(trials[1].intermediate_values) == {k: values[1][k] for k in (0, 1, 2)}
    # Nobody knows what it would have said of the last one.
    assert dict(trials[2].intermediate_values) == {}
    assert reconcile(study, 3).again == [1, 2]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_tests")
def test_a_search_in_a_storage_equals_one_in_a_directory(
    run: RunDirectory, storage: DriverCopy, one_slot: Slots, cache_dir: Path, tmp_path: Path
) -> None:
    tried = experiment(
        *FOLDS, "search.folds=2", "search.trials=4", "search.scheduler.reduction=2",
        "search.keep_checkpoints=1",
    )  # fmt: skip
    options: dict[str, Any] = {"resources": one_slot, "cache_dir": cache_dir, "feature_dim": 512}
    straight = searched(tried, RunDirectory(tmp_path / "straight"), **options)
    # No worker sees the run directory.
    hidden = storage.address.model_copy(update={"token": "of another machine"})
    storage.address = hidden
    storage.start()
    study = searched(tried, run, storage=storage, **options).study
    assert states(study) == states(straight.study)
    table = pandas.read_parquet(run.trials_parquet).set_index("number")
    best = study.best()
    assert best is not None
    for trial in study.trials():
        rows = [row[NLL] for row in rows_of(trial).values()]
        if not rows:
            continue
        assert table.loc[trial.number, "replicates"] == len(rows)
        assert table.loc[trial.number, "epochs"] == 2 * len(rows)
        assert table.loc[trial.number, NLL] == pytest.approx(statistics.fmean(rows))
    storage.close()
    names = storage.storage.list("trials")
    kept = [name for name in names if name.endswith("checkpoint.pt")]
    assert kept == [f"trials/{best.number}/checkpoint.pt"]
