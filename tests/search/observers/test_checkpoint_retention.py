"""Which checkpoints stay on disk."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

from gsfl_tune.experiment import ExperimentError
from gsfl_tune.experiment.constraints import parse_constraint
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.storage import DriverCopy
from gsfl_tune.search import Study, refuse_small_disk
from gsfl_tune.search.observers.base import Watchers
from gsfl_tune.search.observers.checkpoint_retention import CheckpointKeeper, make_room
from gsfl_tune.search.observers.trials_parquet import TrialTable
from gsfl_tune.search.study.goals import Goals
from gsfl_tune.search.workers.task import Task
from gsfl_tune.search.workers.trial_worker import TrialWorker
from gsfl_tune.training.pricing.cost import checkpoint_bytes
from tests.search.experiments import experiment

SIZE = 1000


@pytest.fixture
def study(run: RunDirectory) -> Study:
    made = Study(run.journal, "search", experiment().space, goals=Goals("validation/accuracy"))
    for _ in range(6):
        made.ask()
    return made


def _write(run: RunDirectory, *numbers: int) -> None:
    for number in numbers:
        directory = run.trial("search", number)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "checkpoint.pt").write_bytes(bytes(SIZE))


def _there(run: RunDirectory) -> list[int]:
    return sorted(int(path.parent.name) for path in run.trials().rglob("checkpoint.pt"))


def test_what_is_kept_are_running_trials_and_the_best(run: RunDirectory, study: Study) -> None:
    _write(run, *range(6))
    discarded: list[Path] = []
    keeper = CheckpointKeeper(run, study, keep=2, discard=discarded.append)
    keeper.begin(study, 6, 2)
    assert _there(run) == [0, 1, 2, 3, 4, 5]
    for number, value in enumerate([0.5, 0.9, 0.7]):
        study.complete(number, value)
        keeper.ended(number)
    assert _there(run) == [1, 2, 3, 4, 5]
    study.prune(3, 0.99, 0)
    keeper.ended(3)
    study.fail(4, "broke")
    keeper.ended(4)
    assert _there(run) == [1, 2, 5]
    assert [path.parent.name for path in discarded] == ["0", "3", "4"]
    assert {path.name for path in discarded} == {"checkpoint.pt"}


def test_one_that_breaks_a_constraint_is_deleted_before_worse_ones(run: RunDirectory) -> None:
    goals = Goals("validation/accuracy", constraints=(parse_constraint("size_mb < 10"),))
    study = Study(run.journal, "search", experiment().space, goals=goals)
    _write(run, *range(3))
    keeper = CheckpointKeeper(run, study, keep=2)
    for value, size in ((0.9, 20.0), (0.5, 9.0), (0.4, 9.0)):
        number = study.ask().number
        study.complete(number, value, others={"size_mb": size})
        keeper.ended(number)
    assert _there(run) == [1, 2]


def test_of_a_trial_that_ended_no_older_checkpoints_are_kept(
    run: RunDirectory, study: Study
) -> None:
    _write(run, *range(4))
    for number in range(4):
        (run.trial("search", number) / "checkpoint.1.pt").write_bytes(bytes(SIZE))
    keeper = CheckpointKeeper(run, study, keep=1)
    keeper.begin(study, 6, 2)
    assert keeper.used() == 8 * SIZE
    study.complete(0, 0.5)
    keeper.ended(0)
    study.complete(1, 0.9)
    keeper.ended(1)
    study.prune(2, 0.1, 0)
    keeper.ended(2)
    left = sorted(f"{path.parent.name}/{path.name}" for path in run.trials().rglob("*.pt"))
    assert left == ["1/checkpoint.pt", "3/checkpoint.1.pt", "3/checkpoint.pt"]
    assert keeper.used() == 3 * SIZE


def test_a_new_driver_tidies_up_after_one_that_was_killed(run: RunDirectory, study: Study) -> None:
    _write(run, *range(6))
    for number, value in enumerate([0.5, 0.9, 0.7]):
        study.complete(number, value)
    study.prune(3, 0.99, 0)
    torn = run.trial("search", 5) / ".checkpoint.pt.abc.tmp"
    torn.write_bytes(bytes(10))
    copies = [run.trial("search", number) / "checkpoint.pt" for number in (0, 1, 4)]
    discarded: list[Path] = []
    keeper = CheckpointKeeper(run, study, keep=1, discard=discarded.append, copies=lambda: copies)
    keeper.begin(study, 6, 2)
    # Of what somebody has copies of: 1 is the best, 4 runs.
    assert discarded == [copies[0]]
    assert _there(run) == [1, 4, 5]
    assert not torn.exists()


def test_a_budget_takes_the_worst_first_and_then_gives_up(run: RunDirectory, study: Study) -> None:
    retrain = run.finals / "search-0" / "retrain" / "seed-1" / "checkpoint.pt"
    retrain.parent.mkdir(parents=True)
    retrain.write_bytes(bytes(SIZE))
    _write(run, *range(5))
    for number, value in enumerate([0.5, 0.9, 0.7]):
        study.complete(number, value)
    complaints: list[str] = []
    keeper = CheckpointKeeper(run, study, keep=3, budget=4 * SIZE, on_full=complaints.append)
    keeper.begin(study, 6, 2)
    keeper.tick()
    # Two running ones, a retrained model, and the best.
    assert _there(run) == [1, 3, 4]
    assert keeper.used() == 4 * SIZE
    assert complaints == []
    _write(run, 5)
    keeper._looked = 0.0
    keeper.tick()
    assert _there(run) == [3, 4, 5]
    assert complaints == []
    big = run.trial("search", 5) / "checkpoint.pt"
    big.write_bytes(bytes(2 * SIZE))
    keeper._looked = 0.0
    keeper.tick()
    assert _there(run) == [3, 4, 5]
    assert "take 5kB, search.disk_budget allows 4kB" in complaints[0]


def test_retrains_have_room(run: RunDirectory) -> None:
    _write(run, 0, 1, 2)
    search = experiment("search.disk_budget=7kB", "search.final_seeds=3").defaults().search
    make_room(run, search)
    # Six models will come: winner and control with three seeds each.
    assert len(_there(run)) == 1
    make_room(run, experiment().defaults().search)
    assert len(_there(run)) == 1


def test_a_checkpoint_out_of_sight_counts(run: RunDirectory, study: Study) -> None:
    keeper = CheckpointKeeper(run, study, keep=3, budget=4 * SIZE, unseen=SIZE)
    keeper.begin(study, 6, 2)
    _write(run, 4, 5)
    for number in range(4):
        study.complete(number, 0.1 * number)
        keeper.ended(number)
    # Two that run and are here, and three of the finished on nodes of their own.
    assert keeper.used() == 5 * SIZE
    keeper._look()
    assert keeper.used() == 4 * SIZE


def test_a_budget_that_is_too_small_is_refused_before_the_search(tmp_path: Path) -> None:
    refuse_small_disk(experiment(), 4)
    refuse_small_disk(experiment("search.disk_budget=50GB"), 4)
    with pytest.raises(
        ExperimentError, match=r"found 10kB, allowed at least .*4 trial\(s\) at once"
    ):
        refuse_small_disk(experiment("search.disk_budget=10kB"), 4)


def test_the_estimate_of_a_checkpoint_is_one(run: RunDirectory, cache_dir: Path) -> None:
    largest = experiment("model.latent_dim=64", "model.head=gsfl")
    worker = TrialWorker(
        Task(
            number=0,
            config=largest.defaults(),
            directory=run.trial("search", 0),
            interrupt=run.interrupt_file,
            metric="validation/nll",
            rungs=[1],
            cache_dir=cache_dir,
        )
    )
    worker.step()
    size = (run.trial("search", 0) / "checkpoint.pt").stat().st_size
    assert checkpoint_bytes(largest) == pytest.approx(size, rel=0.1)


def test_of_a_finished_trial_only_the_first_training_keeps_its_checkpoint(
    run: RunDirectory, study: Study
) -> None:
    keeper = CheckpointKeeper(run, study, keep=1)
    for number in (0, 1):
        for folder in (run.trial("search", number), run.trial("search", number) / "replicate-2"):
            folder.mkdir(parents=True)
            (folder / "checkpoint.pt").write_bytes(bytes(SIZE))
    assert keeper.used() == 4 * SIZE
    study.complete(0, 0.9)
    keeper.ended(0)
    study.prune(1, 0.5, 0)
    keeper.ended(1)
    (left,) = run.trials().rglob("checkpoint.pt")
    assert left.parent == run.trial("search", 0)


def test_a_budget_ends_paused_trials_before_finished_ones_lose_theirs(
    run: RunDirectory, study: Study
) -> None:
    _write(run, *range(6))
    keeper = CheckpointKeeper(run, study, keep=3, budget=4 * SIZE)
    keeper.begin(study, 6, 2)
    study.complete(0, 0.9)
    keeper.ended(0)
    for number, value in ((1, 0.8), (2, 0.7), (3, 0.6)):
        study.pause(number, value, 0)
        keeper.paused(number)
    # Six checkpoints: the two worst that wait give theirs back, which ends them.
    keeper.tick()
    assert _there(run) == [0, 1, 4, 5]
    assert study.paused() == {1: 0}
    assert study.counts()["PRUNED"] == 2


def test_the_table_has_the_epochs_of_a_paused_trial_that_was_dropped(
    run: RunDirectory, storage: DriverCopy
) -> None:
    """Its node has a directory of its own: the log is in the storage alone."""
    study = Study(run.journal, "search", experiment().space, goals=Goals("validation/accuracy"))
    storage.start()
    for value in (0.8, 0.7):
        number = study.ask().number
        study.pause(number, value, 0)
        lines = [f'{{"epoch": {epoch}, "seconds": 2.0}}\n' for epoch in (1, 2, 3)]
        storage.storage.put(f"trials/{number}/epochs.jsonl", "".join(lines).encode())
    table = TrialTable(run, study, storage)
    keeper = CheckpointKeeper(
        run,
        study,
        keep=3,
        budget=SIZE,
        discard=storage.discard,
        unseen=SIZE,
        on_dropped=lambda number: watchers.ended(number),
    )
    watchers = Watchers(keeper, table)
    watchers.begin(study, 2, 2)
    watchers.tick()
    watchers.finish(interrupted=False)
    rows = pandas.read_parquet(run.trials_parquet).set_index("number")
    assert rows["state"].tolist() == ["RUNNING", "PRUNED"]
    assert (rows.loc[1, "epochs"], rows.loc[1, "seconds"]) == (3, 6.0)
