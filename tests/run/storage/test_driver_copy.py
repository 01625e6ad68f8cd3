from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.experiment import UserError
from gsfl_tune.run import RunDirectory, write_json, write_text
from gsfl_tune.run.storage import DriverCopy, DriverLease, driver_copy, open_storage, retrying
from gsfl_tune.run.storage.journal_segments import JournalPublisher, find_segments
from gsfl_tune.run.storage.worker_copy import WorkerCopy
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


def _drivers(run: RunDirectory, *begins: float) -> None:
    write_json(run.manifest_file, {"format": 1, "drivers": [{"begin": at} for at in begins]})


def test_void_results_do_not_come_back_after_a_kill(tmp_path: Path) -> None:
    run, storage = _open(tmp_path, "one")
    _fill(run)
    _drivers(run, 1.0)
    write_text(run.results_file, "{}")
    write_text(run.best_simple / "config.json", "{}")
    storage.start()
    storage.close()
    kept = tmp_path / "kept" / "tiny"
    assert (kept / "results.json").exists()
    # The next driver has a larger budget, and is killed before it publishes anything.
    _drivers(run, 1.0, 2.0)
    run.results_file.unlink()
    shutil.rmtree(run.best_simple)
    _, again = _open(tmp_path, "one")
    again.bring_back()
    assert not run.results_file.exists()
    assert not (run.best_simple / "config.json").exists()
    again.start()
    assert not (kept / "results.json").exists()
    assert not (kept / "best-simple" / "config.json").exists()
    again.close()


def test_results_of_a_driver_elsewhere_come_back(tmp_path: Path) -> None:
    run, storage = _open(tmp_path, "one")
    _fill(run)
    _drivers(run, 1.0)
    storage.start()
    storage.close()
    other, there = _open(tmp_path, "two")
    there.bring_back()
    _drivers(other, 1.0, 2.0)
    write_text(other.results_file, "{}")
    there.start()
    there.close()
    _, back = _open(tmp_path, "one")
    back.bring_back()
    assert run.results_file.exists()
    back.close()


def test_what_a_driver_removes_is_not_restored_elsewhere(tmp_path: Path) -> None:
    run, storage = _open(tmp_path, "one")
    _fill(run)
    write_text(run.best_simple / "config.json", "{}")
    write_text(run.evidence / "old.png", "picture")
    storage.start()
    storage.close()
    _, again = _open(tmp_path, "one")
    again.bring_back()
    again.start()
    # The winner is the best now; the report of the run has other pictures.
    shutil.rmtree(run.best_simple)
    (run.evidence / "old.png").unlink()
    write_text(run.evidence / "new.png", "picture")
    again.close()
    other, third = _open(tmp_path, "two")
    third.bring_back()
    assert _files(other).keys() == _files(run).keys() - {"trials/3/checkpoint.pt"}
    third.close()


def test_a_run_directory_that_is_gone_takes_nothing_from_the_storage(tmp_path: Path) -> None:
    run, storage = _open(tmp_path, "one")
    _fill(run)
    write_text(run.best_simple / "config.json", "{}")
    write_text(run.results_file, "{}")
    storage.start()
    kept = tmp_path / "kept" / "tiny"
    wait_until((kept / "results.json").exists, "results are published")
    # As a mount point without its mount.
    run.path.rename(tmp_path / "away")
    run.path.mkdir()
    storage.close()
    assert (kept / "results.json").exists()
    assert (kept / "best-simple" / "config.json").exists()


def test_what_another_driver_published_last_is_not_missed(tmp_path: Path) -> None:
    kept = open_storage(str(tmp_path / "kept" / "tiny"), create=True)
    journal = tmp_path / "journal of the other"
    journal.write_text("0\n")
    publisher = JournalPublisher(kept, journal, [])
    publisher.publish()

    def lease(storage: Any, **options: Any) -> DriverLease:
        # The other driver ends while this one waits for it: pieces of the journal are merged.
        kept.put("run.json", b"{}")
        for number in range(1, 20):
            with journal.open("a") as file:
                file.write(f"{number}\n")
            publisher.publish()
        kept.put("results.json", b"{}")
        return DriverLease(storage, beat_seconds=0.1, **options)

    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    storage = DriverCopy(str(tmp_path / "kept"), run, "tiny", lease=lease)
    assert storage.has_run
    assert storage.journal() == journal.read_bytes()
    storage.bring_back()
    assert run.results_file.exists()
    # What it publishes is newer than all of that.
    storage.start()
    storage.close()
    assert [segment.term for segment in find_segments(kept.list())] == [2]


def test_a_model_of_a_run_without_a_storage_is_published_later(tmp_path: Path) -> None:
    run, storage = _open(tmp_path, "one")
    _fill(run)
    tested = run.finals / "search-3" / "retrain" / "seed-1" / "checkpoint.pt"
    write_text(tested, "model")
    storage.start()
    storage.close()
    other, again = _open(tmp_path, "two")
    again.bring_back()
    place = other.path / tested.relative_to(run.path)
    again.bring(place)
    assert place.read_text() == "model"
    # Of a trial, its worker publishes it.
    assert not (tmp_path / "kept" / "tiny" / "trials" / "3" / "checkpoint.pt").exists()
    again.close()


def test_what_a_worker_published_is_read_from_the_storage(tmp_path: Path) -> None:
    run, storage = _open(tmp_path, "one")
    directory = run.trial("search", 3)
    assert storage.epochs(directory, "a key") is None
    assert storage.params(directory) is None
    worker = WorkerCopy(storage.address, directory, "a key", {"model.dropout": 0.1})
    write_text(directory / "epochs.jsonl", '{"epoch": 1}\n')
    worker.finish()
    worker.close()
    assert storage.epochs(directory, "a key") == b'{"epoch": 1}\n'
    assert storage.epochs(directory, "another key") is None
    assert storage.params(directory) == ("a key", {"model.dropout": 0.1})
    storage.close()


def test_a_checkpoint_that_nobody_needs_goes_during_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_copy, "PUBLISH_SECONDS", 0.05)
    monkeypatch.setattr(driver_copy, "_DISCARD_SECONDS", 1.1)
    run, storage = _open(tmp_path, "one")
    storage.storage.put("trials/3/checkpoint.pt", b"weights")
    storage.start()
    storage.discard(run.trial("search", 3) / "checkpoint.pt")
    there = (tmp_path / "kept" / "tiny" / "trials" / "3" / "checkpoint.pt").exists
    wait_until(lambda: not there(), "the checkpoint is gone", timeout=20)
    storage.close()


def test_a_storage_that_does_not_answer_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_copy, "PUBLISH_SECONDS", 0.05)
    monkeypatch.setattr(retrying, "WORTH_A_WORD", 0.1)
    run, storage = _open(tmp_path, "one")
    _fill(run)
    storage.start()
    kept = tmp_path / "kept" / "tiny"
    wait_until((kept / "best" / "config.json").exists, "files are published")
    assert storage.news() is None
    kept.rename(tmp_path / "away")
    write_text(run.best / "more.json", "{}")
    said = wait_until(lambda: storage.news() or "", "trouble is reported")
    assert f"storage {kept} does not answer" in said
    (tmp_path / "away").rename(kept)
    said = wait_until(lambda: storage.news() or "", "its end is reported")
    assert f"storage {kept} did not answer for" in said
    storage.close()
    assert (kept / "best" / "more.json").exists()
