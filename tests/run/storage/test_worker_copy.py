"""What a node keeps of a training in the storage, and what another node finds there."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from gsfl_tune.run import RunDirectory, write_text
from gsfl_tune.run.storage.address import RunAddress
from gsfl_tune.run.storage.worker_copy import EnvironmentProblem, OwnershipLost, WorkerCopy
from tests.waiting import wait_until


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


def _node(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    address: RunAddress,
    run: RunDirectory,
    key: str = "a key",
) -> WorkerCopy:
    (tmp_path / name).mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    return WorkerCopy(address, run.trial("search", 3), key, {"model.dropout": 0.1})


def _train(copy: WorkerCopy, epochs: int) -> None:
    write_text(copy.directory / "epochs.jsonl", '{"epoch": 1}\n' * epochs)
    write_text(copy.directory / "checkpoint.pt", f"weights {epochs}")
    copy.saved()


def test_another_node_goes_on_from_what_was_published(
    run: RunDirectory, away: RunAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _node(monkeypatch, tmp_path, "one", away, run)
    assert first.directory.is_relative_to(tmp_path / "one")
    assert not list(first.directory.glob("*"))
    _train(first, 2)
    write_text(first.directory / "result.json", "{}")
    first.finish("result.json")
    kept = tmp_path / "kept" / "tiny" / "trials" / "3"
    assert (kept / "checkpoint.pt").read_text() == "weights 2"
    assert (kept / "result.json").read_text() == "{}"
    first.close()
    assert not first.directory.exists()
    second = _node(monkeypatch, tmp_path, "two", away, run)
    assert (second.directory / "checkpoint.pt").read_text() == "weights 2"
    assert (second.directory / "epochs.jsonl").read_text().count("\n") == 2
    _train(second, 3)
    wait_until(lambda: (kept / "checkpoint.pt").read_text() == "weights 3", "it is published")
    second.close()
    assert not run.trials().exists()


def test_every_checkpoint_is_published_before_the_end(
    run: RunDirectory, away: RunAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = _node(monkeypatch, tmp_path, "one", away, run)
    kept = tmp_path / "kept" / "tiny" / "trials" / "3" / "checkpoint.pt"
    for epochs in (1, 2, 3):
        _train(copy, epochs)
        copy.finish()
        assert kept.read_text() == f"weights {epochs}"
    copy.discard("checkpoint.pt")
    assert not kept.exists()
    copy.close()


def test_files_of_another_configuration_are_not_gone_on_with(
    run: RunDirectory, away: RunAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _node(monkeypatch, tmp_path, "one", away, run)
    _train(first, 2)
    first.finish()
    first.close()
    other = _node(monkeypatch, tmp_path, "two", away, run, key="another key")
    assert not list(other.directory.glob("*"))
    assert not (tmp_path / "kept" / "tiny" / "trials" / "3" / "checkpoint.pt").exists()
    other.close()


def test_a_process_that_was_believed_dead_publishes_nothing_more(
    run: RunDirectory, away: RunAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = _node(monkeypatch, tmp_path, "one", away, run)
    _train(slow, 1)
    slow.finish()
    heir = _node(monkeypatch, tmp_path, "two", away, run)
    _train(slow, 9)
    with pytest.raises(OwnershipLost, match="was taken over"):
        slow.finish()
    slow.close()
    kept = tmp_path / "kept" / "tiny" / "trials" / "3" / "checkpoint.pt"
    assert kept.read_text() == "weights 1"
    heir.close()


def test_a_storage_that_is_gone_is_no_fault_of_the_configuration(
    run: RunDirectory, away: RunAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = _node(monkeypatch, tmp_path, "one", away, run)
    shutil.rmtree(tmp_path / "kept")
    (tmp_path / "kept").touch()
    _train(copy, 1)
    with pytest.raises(EnvironmentProblem, match="kept"):
        copy.finish()
    copy.close()


def test_where_the_drivers_directory_is_seen_it_is_used(
    run: RunDirectory, away: RunAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = RunAddress.mark(away.url, run, patience=0.5)
    copy = _node(monkeypatch, tmp_path, "one", here, run)
    assert copy.directory == run.trial("search", 3)
    _train(copy, 1)
    copy.finish()
    copy.close()
    assert (copy.directory / "checkpoint.pt").read_text() == "weights 1"
    assert not list((tmp_path / "one").iterdir())
