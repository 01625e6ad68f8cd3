from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.search.workers.task import Task
from gsfl_tune.search.workers.trial_worker import TrialWorker
from gsfl_tune.training.timeline import Timeline
from tests.search.experiments import experiment
from tests.search.starvation import starved


@pytest.fixture
def task(run: RunDirectory, cache_dir: Path) -> Task:
    config = experiment("model.head=plain", "training.head.epochs=5").defaults()
    timeline = Timeline.of(config)
    return Task(
        number=7,
        config=config,
        directory=run.trial("search", 7),
        interrupt=run.interrupt_file,
        metric="validation/nll",
        # In a space where others train 9 epochs: 1, 3 and the end, which comes sooner here.
        rungs=[rung.epoch for rung in timeline.rungs(Timeline((12, 0)), reduction=3)],
        reduction=3,
        cache_dir=cache_dir,
        save_seconds=0,
        params={"model.latent_dim": 16},
        shown={"model.latent_dim": 16},
    )


def _step(worker: TrialWorker) -> dict[str, Any]:
    """A result without what it took."""
    took = ("measured", "checkpoint_seconds")
    return {key: value for key, value in worker.step().items() if key not in took}


def _steps(worker: TrialWorker) -> list[dict[str, Any]]:
    results = [_step(worker)]
    while not results[-1]["done"]:
        results.append(_step(worker))
    return results


def test_goes_from_rung_to_rung_and_writes_its_files(task: Task) -> None:
    results = _steps(TrialWorker(task))
    assert [result["rung"] for result in results] == [0, 1, 2, 3]
    assert [result["epoch"] for result in results] == [1, 3, 5, 5]
    assert [result["rung_time"] for result in results] == [1, 3, 9, 27]
    assert {result["trial_number"] for result in results} == {7}
    records = EpochLog(task.directory / "epochs.jsonl").read()
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5]
    assert results[1]["validation/nll"] == records[2]["validation/nll"]
    assert results[2]["validation/nll"] == results[3]["validation/nll"]
    assert (task.directory / "checkpoint.pt").exists()
    (events,) = task.directory.glob("events.out.tfevents.*")
    content = events.read_bytes()
    assert b"validation/nll" in content
    assert b"model.latent_dim" in content
    assert b"_hparams_/session_start_info" in content


@pytest.mark.slow
def test_latency_is_measured_at_the_end_and_by_whoever_takes_the_trial_up_there(
    task: Task,
) -> None:
    task = task.model_copy(update={"others": ["latency_ms"]})
    *before, last = _steps(TrialWorker(task))
    assert not any("latency" in result for result in before)
    (again,) = _steps(TrialWorker(task.model_copy(update={"reported": 3})))
    for latency in (json.loads(last["latency"]), json.loads(again["latency"])):
        assert latency["latency_ms"] > 0
        assert (latency["threads"], latency["device"]) == (1, "cpu")
        assert latency["runs"] >= 30
        # Other tests may run beside this one: it is said, either way.
        assert latency["reliable"] in (True, False)
        assert latency["spread"] >= 0
        assert 0 <= latency["others"] <= latency["cores"]
    assert again["validation/nll"] == last["validation/nll"]


def test_an_interrupt_saves_and_the_trial_ends_as_if_it_had_not_been(task: Task) -> None:
    whole = _steps(TrialWorker(task))
    other = task.model_copy(update={"directory": task.directory.with_name("8"), "save_seconds": 99})
    worker = TrialWorker(other)
    first = _step(worker)
    task.interrupt.touch()
    stopped = _step(worker)
    assert stopped == {"trial_number": 7, "interrupted": True, "done": True}
    assert (other.directory / "checkpoint.pt").exists()
    task.interrupt.unlink()
    rest = _steps(TrialWorker(other.model_copy(update={"reported": 1})))
    assert [first, *rest] == whole


def test_a_worker_that_starts_again_answers_old_rungs_from_the_log(task: Task) -> None:
    worker = TrialWorker(task)
    before = [_step(worker), _step(worker)]
    seconds = [record["seconds"] for record in EpochLog(task.directory / "epochs.jsonl").read()]
    # Killed here; the same task again, as Ray has it.
    after = _steps(TrialWorker(task))
    assert after[:2] == before
    again = [record["seconds"] for record in EpochLog(task.directory / "epochs.jsonl").read()]
    assert again[:3] == seconds


def test_a_broken_checkpoint_costs_time_and_nothing_else(task: Task) -> None:
    worker = TrialWorker(task)
    before = [_step(worker), _step(worker)]
    (task.directory / "checkpoint.pt").write_bytes(b"half a checkpoint")
    assert _steps(TrialWorker(task))[:2] == before


@pytest.mark.parametrize(("lost", "kept"), [(0, 3), (1, 2), (2, 0)])
def test_goes_on_from_the_last_checkpoint_that_can_be_read(
    task: Task, lost: int, kept: int
) -> None:
    whole = _steps(TrialWorker(task.model_copy(update={"directory": task.directory / "whole"})))
    first = TrialWorker(task)
    before = [_step(first), _step(first)]

    log = EpochLog(task.directory / "epochs.jsonl")
    trained = log.read()
    assert len(trained) == 3
    # Two trainings of one epoch may take equally long: a mark tells which of them is in the log.
    marked = [record | {"seconds": -1.0} for record in trained]
    log.path.write_text("".join(json.dumps(record) + "\n" for record in marked))
    for name in ("checkpoint.pt", "checkpoint.1.pt")[:lost]:
        path = task.directory / name
        path.write_bytes(path.read_bytes()[:100])
    results = [*before, *_steps(TrialWorker(task.model_copy(update={"reported": 2})))]
    values = [result["validation/nll"] for result in results]
    assert values == [result["validation/nll"] for result in whole]
    from_before = [record["seconds"] == -1.0 for record in log.read()[:3]]
    assert from_before == [True] * kept + [False] * (3 - kept)


def test_does_not_even_begin_while_the_run_is_interrupted(task: Task) -> None:
    task.interrupt.parent.mkdir(parents=True, exist_ok=True)
    task.interrupt.touch()
    assert TrialWorker(task).step()["interrupted"]
    assert not task.directory.exists()


def test_a_loss_that_explodes_ends_the_trial_with_a_reason(task: Task) -> None:
    wild = experiment(
        "model.head=gsfl", "training.head.learning_rate=1e30", "training.head.optimizer=sgd"
    ).defaults()
    results = _steps(TrialWorker(task.model_copy(update={"config": wild})))
    assert "non-finite" in results[-1]["failed"]


def _with_weights(task: Task, weights: Path) -> Task:
    model = task.config.model.model_copy(update={"weights": str(weights)})
    config = task.config.model_copy(update={"model": model})
    return task.model_copy(update={"config": config})


def test_weights_that_do_not_fit_end_the_trial_with_a_reason(task: Task, tmp_path: Path) -> None:
    weights = tmp_path / "other.pt"
    torch.save({"stem.weight": torch.zeros(3)}, weights)
    result = TrialWorker(_with_weights(task, weights)).step()
    assert result["done"]
    assert "other.pt does not fit" in result["failed"]


def test_more_groups_than_classes_end_the_trial_with_a_reason(task: Task) -> None:
    many = experiment("model.head=gsfl", "model.groups.count=500").defaults()
    result = TrialWorker(task.model_copy(update={"config": many})).step()
    assert "model.groups" in result["failed"]


def test_what_the_machine_does_is_not_the_trials_failure(task: Task, tmp_path: Path) -> None:
    """Places that cannot be written stand for a disk that is full."""
    file = tmp_path / "file"
    file.touch()
    half = tmp_path / "half"
    half.mkdir()
    (half / "features").touch()
    broken = {
        "nowhere.safetensors": _with_weights(task, tmp_path / "nowhere.safetensors"),
        str(file / "cache"): task.model_copy(update={"cache_dir": file / "cache"}),
        str(half / "features"): task.model_copy(update={"cache_dir": half}),
        str(file / "trial"): task.model_copy(update={"directory": file / "trial"}),
    }
    for place, one in broken.items():
        result = TrialWorker(one).step()
        assert result["done"]
        assert "failed" not in result
        assert place in result["environment"]


def test_a_shared_workspace_serves_each_trial_its_own_size(task: Task, cache_dir: Path) -> None:
    sizes = [
        experiment("model.head=plain", f"data.image_size={size}").defaults() for size in (32, 24)
    ]

    def losses() -> list[float]:
        workers = [
            TrialWorker(task.model_copy(update={"config": config, "side": 40})) for config in sizes
        ]
        return [_step(worker)["validation/nll"] for worker in workers]

    shared = losses()
    alone = []
    for config in reversed(sizes):
        directory = task.directory.with_name(f"alone-{config.data.image_size}")
        update = {"config": config, "side": 40, "directory": directory}
        alone.append(TrialWorker(task.model_copy(update=update)).step()["validation/nll"])
    assert shared == alone[::-1]
    assert shared[0] != shared[1]


def test_a_task_travels_as_json(task: Task) -> None:
    assert Task.model_validate_json(task.model_dump_json()) == task
    assert json.loads(task.model_dump_json())["number"] == 7


def test_goes_on_from_its_last_rung_however_seldom_it_saves(task: Task) -> None:
    task = task.model_copy(update={"save_seconds": 1e9})
    trained: list[int] = []

    class Killed(BaseException):
        pass

    class Watched(TrialWorker):
        def _epoch(self, record: dict[str, Any]) -> None:
            trained.append(record["epoch"])
            super()._epoch(record)
            if len(trained) == 4:
                raise Killed

    lost = Watched(task)
    assert [lost.step()["epoch"] for _ in range(2)] == [1, 3]
    with pytest.raises(Killed):
        lost.step()
    _steps(Watched(task.model_copy(update={"reported": 2})))
    assert trained == [1, 2, 3, 4, 4, 5]


def test_a_worker_that_was_given_up_for_dead_leaves_the_trial_to_its_heir(task: Task) -> None:
    lost = TrialWorker(task)
    lost.step()
    heir = TrialWorker(task.model_copy(update={"reported": 1}))
    heir.step()
    files = {path: path.read_bytes() for path in task.directory.glob("[!e.]*")}
    log = EpochLog(task.directory / "epochs.jsonl")
    known = log.read()
    assert lost.step() == {"trial_number": 7, "interrupted": True, "done": True}
    assert {path: path.read_bytes() for path in files} == files
    assert log.read() == known
    assert _steps(heir)[-1]["done"]
    assert [record["epoch"] for record in log.read()] == [1, 2, 3, 4, 5]


def test_a_slow_trial_fails_at_the_end_of_an_epoch(task: Task) -> None:
    slow = TrialWorker(task.model_copy(update={"timeout": 0.0}))
    result = slow.step()
    assert result["done"]
    assert "longer than search.trial_timeout (0 s)" in result["failed"]
    assert "after epoch 1" in result["failed"]
    # One that has come to its end was fast enough.
    short = task.model_copy(
        update={"timeout": 0.0, "rungs": [1], "directory": task.directory / "1"}
    )
    assert "failed" not in TrialWorker(short).step()


def test_epochs_of_an_earlier_process_count_for_the_timeout(task: Task) -> None:
    TrialWorker(task).step()
    path = task.directory / "epochs.jsonl"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "seconds": 7200.0}) + "\n")
    result = TrialWorker(task.model_copy(update={"timeout": 3600.0, "reported": 1})).step()
    assert "after epoch 2" in result["failed"]


def test_a_trial_out_of_memory_goes_on_with_half_the_batch(task: Task) -> None:
    """The optimiser sees the same batches: without dropout, the same comes out."""
    model = task.config.model.model_copy(update={"dropout": 0.0, "head": "gsfl"})
    task = task.model_copy(update={"config": task.config.model_copy(update={"model": model})})
    whole = _steps(TrialWorker(task))
    other = task.model_copy(update={"directory": task.directory / "halved"})
    worker = TrialWorker(other)
    first = _step(worker)
    with starved(40):  # as if another process took the memory now
        rest = _steps(worker)
    assert "batch_halved" not in first
    assert all(result["batch_halved"] for result in rest)
    halves = [first, *rest]
    assert [result["epoch"] for result in halves] == [result["epoch"] for result in whole]
    for ours, theirs in zip(halves, whole, strict=True):
        assert ours["validation/nll"] == pytest.approx(theirs["validation/nll"], rel=1e-4)
    # Where it is known beforehand, nothing runs out.
    known = other.model_copy(update={"directory": task.directory / "known", "pieces": 2})
    with starved(40):
        assert _steps(TrialWorker(known))[-1]["rung"] == 3


def test_a_trial_that_half_the_batch_does_not_help_fails_with_the_reason(task: Task) -> None:
    with starved(0):
        results = _steps(TrialWorker(task))
    assert len(results) == 1
    assert results[0]["batch_halved"]
    assert "out of memory, at half the batch too" in results[0]["failed"]
    assert "can't allocate memory" in results[0]["failed"]


def test_an_error_of_a_gpu_counts_as_that_of_a_cpu(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gsfl_tune.training.stages import HeadStage

    original = HeadStage._update
    raised = []

    def update(self: Any, step: int, total: int) -> None:
        if not raised:
            raised.append(step)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0")
        original(self, step, total)

    monkeypatch.setattr(HeadStage, "_update", update)
    results = _steps(TrialWorker(task))
    assert raised == [0]
    assert results[-1]["batch_halved"]
    assert results[-1]["rung"] == 3


def learning(task: Task, **changes: Any) -> Task:
    """A trial with a pretraining of two epochs, in a space with rungs after 1, 2 and 4."""
    pytest.importorskip("lightly")
    config = experiment(
        "model.head=plain", "model.backbone=test_resnet", "training.head.epochs=1",
        "training.pretrain=true", "pretrain.epochs=2", "pretrain.batch_size=60",
        "pretrain.hidden_dim=8", "pretrain.projection_dim=4",
    ).defaults()  # fmt: skip
    own = {"config": config, "rungs": [1], "pretraining": [1, 2, 4], "reported": -3}
    return task.model_copy(update=own | changes)


def test_rungs_within_a_pretraining_come_first(task: Task, run: RunDirectory) -> None:
    results = _steps(TrialWorker(learning(task)))
    # The third is that of longer pretrainings.
    assert [result["rung"] for result in results] == [-3, -2, 0]
    told = [json.loads(result["pretraining"]) for result in results[:2]]
    assert [epoch for epoch, _ in told] == [1, 2]
    for result, (_, accuracy) in zip(results, told, strict=False):
        assert result["validation/nll"] == pytest.approx(1 - accuracy)
        assert not result["done"]
    records = EpochLog(task.directory / "epochs.jsonl").read()
    assert [record["epoch"] for record in records] == [1]
    # A trial that shares the pretraining says the same; one that goes on begins behind them.
    other = task.model_copy(update={"number": 8, "directory": run.trial("search", 8)})
    shared = TrialWorker(learning(other))
    assert [json.loads(_step(shared)["pretraining"]) for _ in range(2)] == told
    again = TrialWorker(learning(other, reported=0))
    assert _step(again)["rung"] == 0
    plain = experiment("model.head=plain", "training.head.epochs=1").defaults()
    assert _step(TrialWorker(learning(other, config=plain)))["rung"] == 0


def test_an_interrupted_pretraining_can_be_continued(task: Task) -> None:
    trial = learning(task.model_copy(update={"cache_dir": task.directory.parent / "cache"}))
    worker = TrialWorker(trial)
    assert _step(worker)["rung"] == -3
    task.interrupt.parent.mkdir(parents=True, exist_ok=True)
    task.interrupt.touch()
    assert _step(worker) == {"trial_number": 7, "interrupted": True, "done": True}
    task.interrupt.unlink()
    again = TrialWorker(trial.model_copy(update={"reported": -2}))
    assert _step(again)["rung"] == -2
