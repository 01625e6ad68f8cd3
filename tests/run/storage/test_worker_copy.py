"""What a node keeps of a training in the storage, and what another node finds there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gsfl_tune.run import RunDirectory, write_text
from gsfl_tune.run.storage.address import RunAddress
from gsfl_tune.run.storage.worker_copy import EnvironmentProblem, OwnershipLost, WorkerCopy
from tests.waiting import wait_until

Node = Callable[..., WorkerCopy]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    return run


@pytest.fixture
def away(run: RunDirectory, tmp_path: Path) -> RunAddress:
    """The run as a node sees it that has another disk than the driver."""
    kept = tmp_path / "kept" / "tiny"
    kept.mkdir(parents=True)
    address = RunAddress.mark(str(kept), run, patience=0.5)
    return address.model_copy(update={"token": "of another disk"})


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Where the storage keeps the training."""
    return tmp_path / "kept" / "tiny" / "trials" / "3"


@pytest.fixture
def node(
    run: RunDirectory, away: RunAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Node:
    """Begins the training on a node with a disk of its own."""

    def begin(name: str, key: str = "a key", address: RunAddress = away) -> WorkerCopy:
        (tmp_path / name).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
        return WorkerCopy(address, run.trial("search", 3), key, {"model.dropout": 0.1})

    return begin


def _train(copy: WorkerCopy, epochs: int) -> None:
    write_text(copy.directory / "epochs.jsonl", '{"epoch": 1}\n' * epochs)
    write_text(copy.directory / "checkpoint.pt", f"weights {epochs}")
    copy.saved()


def test_another_node_goes_on_from_what_was_published(
    node: Node,
    kept: Path,
    run: RunDirectory,
    tmp_path: Path,
) -> None:
    first = node("one")
    assert first.directory.is_relative_to(tmp_path / "one")
    assert not list(first.directory.glob("*"))
    _train(first, 2)
    write_text(first.directory / "result.json", "{}")
    first.finish("result.json")
    assert (kept / "checkpoint.pt").read_text() == "weights 2"
    assert (kept / "result.json").read_text() == "{}"
    write_text(first.directory / "events.out.tfevents.1", "curves")
    first.close()
    assert (kept / "events.out.tfevents.1").read_text() == "curves"
    assert not first.directory.exists()
    second = node("two")
    assert (second.directory / "checkpoint.pt").read_text() == "weights 2"
    assert (second.directory / "epochs.jsonl").read_text().count("\n") == 2
    _train(second, 3)
    wait_until(lambda: (kept / "checkpoint.pt").read_text() == "weights 3", "it is published")
    second.close()
    assert not run.trials().exists()


def test_every_checkpoint_is_published_before_the_end(
    node: Node,
    kept: Path,
) -> None:
    copy = node("one")
    for epochs in (1, 2, 3):
        _train(copy, epochs)
        copy.finish()
        assert (kept / "checkpoint.pt").read_text() == f"weights {epochs}"
    copy.discard("checkpoint.pt")
    assert not (kept / "checkpoint.pt").exists()
    copy.close()


def test_files_of_another_configuration_are_not_gone_on_with(
    node: Node,
    kept: Path,
) -> None:
    first = node("one")
    _train(first, 2)
    first.finish()
    first.close()
    other = node("two", key="another key")
    assert not list(other.directory.glob("*"))
    assert not (kept / "checkpoint.pt").exists()
    other.close()


def test_a_process_that_was_believed_dead_publishes_nothing_more(
    node: Node,
    kept: Path,
) -> None:
    slow = node("one")
    _train(slow, 1)
    slow.finish()
    heir = node("two")
    _train(slow, 9)
    with pytest.raises(OwnershipLost, match="was taken over"):
        slow.finish()
    slow.close()
    assert (kept / "checkpoint.pt").read_text() == "weights 1"
    heir.close()


def test_a_storage_that_is_gone_is_no_fault_of_the_configuration(
    node: Node,
    tmp_path: Path,
) -> None:
    copy = node("one")
    shutil.rmtree(tmp_path / "kept")
    (tmp_path / "kept").touch()
    _train(copy, 1)
    with pytest.raises(EnvironmentProblem, match="kept"):
        copy.finish()
    copy.close()


def test_a_checkpoint_that_cannot_be_read_is_told(node: Node) -> None:
    copy = node("one")
    (copy.directory / "checkpoint.pt").mkdir(parents=True)
    copy.saved()
    with pytest.raises(EnvironmentProblem, match="Is a directory"):
        copy.finish()
    copy.close()


def test_where_the_drivers_directory_is_seen_it_is_used(
    node: Node,
    run: RunDirectory,
    away: RunAddress,
    tmp_path: Path,
) -> None:
    here = RunAddress.mark(away.url, run, patience=0.5)
    copy = node("one", address=here)
    assert copy.directory == run.trial("search", 3)
    _train(copy, 1)
    copy.finish()
    copy.close()
    assert (copy.directory / "checkpoint.pt").read_text() == "weights 1"
    assert not list((tmp_path / "one").iterdir())
