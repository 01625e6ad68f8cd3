"""Trials whose node does not see the run directory: all that is left of them is in the storage."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.run import RunDirectory
from gsfl_tune.run.storage import DriverCopy, RunAddress
from gsfl_tune.search import open_study
from gsfl_tune.search.observers.checkpoint_retention import make_room
from gsfl_tune.search.ray_tune.rung_epochs import largest_timeline
from gsfl_tune.search.ray_tune.storage_watch import tell_finished
from gsfl_tune.search.study.first_trials import enqueue_first_trials
from gsfl_tune.search.study.reconcile import reconcile
from gsfl_tune.search.workers.task import Task
from gsfl_tune.search.workers.trial_worker import TrialWorker
from gsfl_tune.training.fingerprint import fingerprint
from gsfl_tune.training.timeline import Timeline
from tests.search.experiments import experiment
from tests.search.workers.test_trial_worker import _step, _steps

PLAIN = ("model.head=plain", "training.head.epochs=5")


@pytest.fixture
def away(storage: DriverCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunAddress:
    """As a node is told that does not see the run directory."""
    _other_node(tmp_path, monkeypatch, "node-1")
    return storage.address.model_copy(update={"token": "of another machine", "patience": 0.5})


def _other_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))


def _task(run: RunDirectory, place: RunAddress, cache_dir: Path, **changes: Any) -> Task:
    config = experiment(*PLAIN).defaults()
    known: dict[str, Any] = {
        "number": 7,
        "config": config,
        "directory": run.trial("search", 7),
        "interrupt": run.interrupt_file,
        "metric": "validation/nll",
        "rungs": [rung.epoch for rung in Timeline.of(config).rungs(Timeline((12, 0)), reduction=3)],
        "cache_dir": cache_dir,
        "save_seconds": 0,
        "storage": place,
    }
    return Task(**{**known, **changes})


def test_a_trial_goes_on_where_another_node_left_it(
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
    worker = TrialWorker(task)
    before = [_step(worker), _step(worker)]
    worker._worker_copy.finish()  # type: ignore[union-attr]
    records = storage.storage.get("trials/7/epochs.jsonl")
    # The node is lost here; the same task on another one.
    _other_node(tmp_path, monkeypatch, "node-2")
    after = _steps(TrialWorker(task))
    assert before == whole[:2]
    assert after == whole
    kept = storage.storage.list("trials/7")
    assert {"trials/7/checkpoint.pt", "trials/7/epochs.jsonl"} < set(kept)
    log = storage.storage.get("trials/7/epochs.jsonl")
    assert records is not None
    assert log is not None
    assert log.startswith(records), "epochs were trained again"
    assert [json.loads(line)["epoch"] for line in log.splitlines()] == [1, 2, 3, 4, 5]
    assert any("events.out" in name for name in kept)
    # Nothing of it in the driver's directory, nothing left on the node.
    assert not run.trials().exists()
    assert [path for path in (tmp_path / "node-2").rglob("*") if path.is_file()] == []
    # A third time: everything is answered from the log.
    assert _steps(TrialWorker(task)) == whole
    assert storage.storage.get("trials/7/epochs.jsonl") == log


def test_a_rung_is_reported_when_its_epochs_are_in_the_storage(
    run: RunDirectory, away: RunAddress, storage: DriverCopy, cache_dir: Path
) -> None:
    worker = TrialWorker(_task(run, away, cache_dir, save_seconds=99))
    for _ in range(2):
        result = _step(worker)
        log = storage.storage.get("trials/7/epochs.jsonl") or b""
        last = json.loads(log.splitlines()[-1])
        assert last["epoch"] == result["epoch"]
        assert last["validation/nll"] == result["validation/nll"]
    worker.close()


def test_what_another_configuration_left_under_the_number_is_thrown_away(
    run: RunDirectory, away: RunAddress, storage: DriverCopy, cache_dir: Path
) -> None:
    other = experiment(*PLAIN, "model.latent_dim=8").defaults()
    first = _steps(TrialWorker(_task(run, away, cache_dir, config=other)))
    second = _steps(TrialWorker(_task(run, away, cache_dir)))
    assert second != first
    log = storage.storage.get("trials/7/epochs.jsonl") or b""
    assert json.loads(log.splitlines()[-1])["validation/nll"] == second[-1]["validation/nll"]


def test_a_storage_that_stays_away_is_no_failure_of_the_trial(
    run: RunDirectory, away: RunAddress, storage: DriverCopy, cache_dir: Path, tmp_path: Path
) -> None:
    worker = TrialWorker(_task(run, away, cache_dir))
    assert _step(worker)["rung"] == 0
    kept = tmp_path / "kept" / "tiny"
    kept.rename(tmp_path / "away")
    result = _step(worker)
    assert "failed" not in result
    assert "storage" in result["environment"]
    (tmp_path / "away").rename(kept)
    assert _steps(TrialWorker(_task(run, away, cache_dir)))[-1]["rung"] == 3


def test_an_interrupt_reaches_a_trial_elsewhere(
    run: RunDirectory, away: RunAddress, storage: DriverCopy, cache_dir: Path
) -> None:
    long = experiment("model.head=plain", "training.head.epochs=5000").defaults()
    storage.start()
    run.interrupt_file.touch()
    # Its own path is not to be seen there.
    task = _task(run, away, cache_dir, config=long, rungs=[5000], interrupt=run.path / "no-file")
    assert TrialWorker(task).step()["interrupted"]
    assert "trials/7/checkpoint.pt" in storage.storage.list("trials/7")


def test_an_end_that_the_journal_does_not_know_is_told_from_the_storage(
    run: RunDirectory, away: RunAddress, storage: DriverCopy, cache_dir: Path
) -> None:
    tiny = experiment("search.sampler.name=random")
    study = open_study(tiny, run)
    results = []
    for position in range(3):
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
        # The first comes to its end, the second to its first rung, the third never begins.
        if position == 0:
            results = _steps(worker)
        elif position == 1:
            _step(worker)
            worker.close()
    assert study.running() == [0, 1, 2]
    assert tell_finished(study, tiny, run, storage) == [0]
    trial = study.trials()[0]
    assert trial.state.name == "COMPLETE"
    assert trial.value == results[-1]["validation/nll"]
    assert trial.intermediate_values == {
        result["rung"]: result["validation/nll"] for result in results
    }
    assert reconcile(study, len(results) - 1).again == [1, 2]
    storage.settle()
    assert (run.trial("search", 0) / "epochs.jsonl").exists()
    # Another configuration's epochs are not this trial's.
    assert storage.epochs(run.trial("search", 0), fingerprint(experiment().defaults())) is None


def test_trials_that_the_journal_does_not_know_are_those_of_the_storage(
    run: RunDirectory, away: RunAddress, storage: DriverCopy, cache_dir: Path
) -> None:
    tiny = experiment("search.sampler.name=random")
    study = open_study(tiny, run)
    known, asked, last = run.journal.read_bytes(), [], {}
    for position in range(4):
        new = study.ask()
        assert new is not None
        # Not what would be proposed now, as where several workers had been told of other ends.
        new = replace(
            new, params=new.params | {"training.head.learning_rate": 0.01 + position / 1000}
        )
        asked.append(new)
        if position == 0:
            study.close()
            known = run.journal.read_bytes()
            study = open_study(tiny, run)
        config = tiny.configure(new.params)
        rungs = Timeline.of(config).rungs(largest_timeline(tiny), reduction=3)
        task = _task(
            run,
            away,
            cache_dir,
            number=new.number,
            config=config,
            params=new.params,
            directory=run.trial("search", new.number),
            rungs=[rung.epoch for rung in rungs],
        )
        worker = TrialWorker(task)
        # The second is at its first rung, the third has not begun, the last is at its end.
        if position == 1:
            _step(worker)
            worker.close()
        elif position == 3:
            last = _steps(worker)[-1]
    study.close()
    # What was published of the journal when the driver's disk was lost.
    run.journal.write_bytes(known)
    study = open_study(tiny, run)
    assert tell_finished(study, tiny, run, storage) == [3]
    assert [trial.state.name for trial in study.trials()] == ["RUNNING"] * 3 + ["COMPLETE"]
    for number in (1, 3):
        assert study.trial(number).params == asked[number].params
    assert study.trial(3).value == last["validation/nll"]
    assert reconcile(study, 10).again == [0, 1, 2]


def test_first_configurations_are_not_tried_again_when_the_whole_journal_is_lost(
    run: RunDirectory, away: RunAddress, storage: DriverCopy, cache_dir: Path
) -> None:
    tiny = experiment("search.sampler.name=random")
    study = open_study(tiny, run)
    enqueue_first_trials(study, tiny)
    new = study.ask()
    assert new is not None
    assert new.protected
    worker = TrialWorker(
        _task(
            run,
            away,
            cache_dir,
            number=new.number,
            config=tiny.configure(new.params),
            params=new.params,
            directory=run.trial("search", new.number),
        )
    )
    _step(worker)
    worker.close()
    study.close()
    run.journal.unlink()
    study = open_study(tiny, run)
    tell_finished(study, tiny, run, storage)
    enqueue_first_trials(study, tiny)
    (again,) = study.trials()
    assert again.params == new.params
    assert study.again(again.number).protected
    # It waits for nobody: what comes next is a proposal.
    following = study.ask()
    assert following is not None
    assert following.number == 1
    assert not following.protected


def test_retrains_have_room_in_the_storage_too(run: RunDirectory, storage: DriverCopy) -> None:
    for number in range(3):
        storage.storage.put(f"trials/{number}/checkpoint.pt", bytes(1000))
        storage.storage.put(f"trials/{number}/epochs.jsonl", b"")
    search = experiment("search.disk_budget=7kB", "search.final_seeds=3").defaults().search
    storage.start()
    # Six models will come: winner and control with three seeds each.
    make_room(run, search, storage)
    storage.close()
    left = storage.storage.list("trials")
    assert sorted(left.values()) == [0, 0, 0, 1000]


def test_a_worker_that_sees_the_run_directory_works_there(
    run: RunDirectory, storage: DriverCopy, cache_dir: Path
) -> None:
    task = _task(run, storage.address, cache_dir)
    results = _steps(TrialWorker(task))
    assert results[-1]["done"]
    local = (task.directory / "epochs.jsonl").read_bytes()
    assert storage.storage.get("trials/7/epochs.jsonl") == local
    assert storage.storage.get("trials/7/checkpoint.pt") is not None
    # Ahead of the storage, as after a kill: it is the node's own file that counts.
    storage.storage.put("trials/7/epochs.jsonl", local.splitlines(keepends=True)[0])
    storage.storage.delete("trials/7/checkpoint.pt")
    assert _steps(TrialWorker(task)) == results
    assert (task.directory / "epochs.jsonl").read_bytes() == local


def test_a_process_that_was_given_up_for_dead_publishes_no_more(
    run: RunDirectory,
    away: RunAddress,
    storage: DriverCopy,
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = _task(run, away, cache_dir)
    ghost = TrialWorker(task)
    assert ghost.step()["rung"] == 0
    _other_node(tmp_path, monkeypatch, "node-2")
    heir = TrialWorker(task)
    _steps(heir)
    before = {name: storage.storage.get(name) for name in storage.storage.list("trials/7")}
    assert ghost.step()["interrupted"]
    for name, data in before.items():
        if not name.startswith("trials/7/events.out"):
            assert storage.storage.get(name) == data
