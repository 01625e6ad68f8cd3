from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.experiment import UserError
from gsfl_tune.run import RunDirectory, write_json, write_text
from gsfl_tune.run.storage import DriverCopy, DriverLease, open_storage
from tests.waiting import wait_until


def _open(tmp_path: Path, name: str) -> tuple[RunDirectory, DriverCopy]:
    run = RunDirectory(tmp_path / name)
    run.path.mkdir(exist_ok=True)

    def lease(storage: Any, **options: Any) -> DriverLease:
        return DriverLease(storage, beat_seconds=0.1, **options)

    return run, DriverCopy(str(tmp_path / "kept"), run, "tiny", lease=lease)


def _fill(run: RunDirectory) -> None:
    write_json(run.manifest_file, {"format": 1})
    run.journal.write_text('{"a":1}\n')
    write_text(run.best / "config.json", "{}")
    write_text(run.trial("search", 3) / "epochs.jsonl", '{"epoch": 1}\n')
    write_text(run.trial("search", 3) / "checkpoint.pt", "weights")
    for name in ("result.json", "test.npz", "validation.npz"):
        write_text(run.finals / "search-3" / "retrain" / "seed-1" / name, name)


def _files(run: RunDirectory) -> dict[str, bytes]:
    return {
        path.relative_to(run.path).as_posix(): path.read_bytes()
        for path in run.path.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_a_run_comes_back_on_another_machine(tmp_path: Path) -> None:
    run, storage = _open(tmp_path, "one")
    assert not storage.has_run
    _fill(run)
    storage.start()
    kept = tmp_path / "kept" / "tiny"
    wait_until((kept / "best" / "config.json").exists, "files are published")
    with run.journal.open("a") as file:
        file.write('{"b":2}\n')
    write_text(run.results_file, "{}")
    storage.close()
    assert not (kept / "driver.json").exists()
    other, again = _open(tmp_path, "two")
    assert again.has_run
    assert again.bring_back()
    expected = _files(run)
    # Checkpoints go to the workers that want them.
    expected.pop("trials/3/checkpoint.pt")
    assert _files(other) == expected
    again.close()


def test_results_are_there_after_everything_else_and_go_when_they_are_void(tmp_path: Path) -> None:
    run, storage = _open(tmp_path, "one")
    _fill(run)
    storage.start()
    kept = tmp_path / "kept" / "tiny"
    for number in range(300):
        write_text(run.best / f"{number}.json", "x")
    write_text(run.results_file, "{}")
    wait_until((kept / "results.json").exists, "results are published")
    assert len(list((kept / "best").glob("*.json"))) == 301
    run.results_file.unlink()
    wait_until(lambda: not (kept / "results.json").exists(), "results are gone")
    storage.close()


def test_workers_elsewhere_see_the_interrupt(tmp_path: Path) -> None:
    run, storage = _open(tmp_path, "one")
    _fill(run)
    storage.start()
    address = storage.address
    away = address.model_copy(update={"run": tmp_path / "not-here"})
    from gsfl_tune.run.storage.worker_copy import InterruptSignal, storage_of

    signal = InterruptSignal(away, storage_of(away), here=away.is_here)
    assert address.is_here
    assert not away.is_here
    assert not signal.exists()
    run.interrupt_file.touch()
    wait_until(signal.exists, "the interrupt is seen")
    storage.close()


def test_the_side_that_went_on_wins(tmp_path: Path) -> None:
    run, storage = _open(tmp_path, "one")
    _fill(run)
    storage.start()
    storage.close()
    # Goes on elsewhere, while this machine kept a second that it never published.
    other, again = _open(tmp_path, "two")
    again.bring_back()
    with other.journal.open("a") as file:
        file.write('{"elsewhere":1}\n')
    write_text(other.trial("search", 3) / "epochs.jsonl", '{"epoch": 1}\n{"epoch": 2}\n')
    again.start()
    again.storage.put("trials/3/epochs.jsonl", b'{"epoch": 1}\n{"epoch": 2}\n')
    again.close()
    with run.journal.open("a") as file:
        file.write('{"lost":1}\n')
    _, back = _open(tmp_path, "one")
    assert back.bring_back()
    assert run.journal.read_text() == '{"a":1}\n{"elsewhere":1}\n'
    assert run.journal.with_name("study.journal.old").read_text() == '{"a":1}\n{"lost":1}\n'
    assert (run.trial("search", 3) / "epochs.jsonl").read_text().count("\n") == 2
    assert not (run.trial("search", 3) / "checkpoint.pt").exists()
    back.close()


def test_a_run_directory_that_is_ahead_stays(tmp_path: Path) -> None:
    run, storage = _open(tmp_path, "one")
    _fill(run)
    storage.start()
    storage.close()
    with run.journal.open("a") as file:
        file.write('{"last second":1}\n')
    before = _files(run)
    _, again = _open(tmp_path, "one")
    assert not again.bring_back()
    assert _files(run) == before
    again.start()
    again.close()
    _, third = _open(tmp_path, "three")
    third.bring_back()
    assert (tmp_path / "three" / "study.journal").read_bytes() == run.journal.read_bytes()
    third.close()


def test_what_a_storage_names_stays_inside_of_the_run_directory(tmp_path: Path) -> None:
    kept = open_storage(str(tmp_path / "kept" / "tiny"), create=True)
    kept.put("run.json", b"{}")
    kept.put("trials/1/epochs.jsonl", b"x")
    run, storage = _open(tmp_path, "one")
    (tmp_path / "elsewhere").mkdir()
    (run.path / "trials").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="outside"):
        storage.bring_back()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    storage.close()


def test_a_second_driver_with_another_run_directory_is_refused(tmp_path: Path) -> None:
    _, storage = _open(tmp_path, "one")
    with pytest.raises(UserError, match="another search works on this run"):
        _open(tmp_path, "two")
    storage.close()
