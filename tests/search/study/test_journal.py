"""What a reader finds in the journal, wherever the writer was when it looked."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from gsfl_tune.search.study.journal import FollowedJournal, open_journal, read_studies
from tests.search.experiments import experiment


@pytest.fixture
def sizes_seen(run: RunDirectory):
    """Sizes of the journal that somebody saw who looked all the time while trials were asked."""
    seen: set[int] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            if run.journal.exists():
                seen.add(run.journal.stat().st_size)

    watcher = threading.Thread(target=look, daemon=True)
    study = open_study(experiment(), run)
    begun = run.journal.stat().st_size
    watcher.start()
    for number in range(25):
        asked = study.ask()
        study.report(asked.number, 0, 0.5)
        study.complete(asked.number, 0.1 * number, 1)
    ended.set()
    watcher.join()
    study.close()
    # Few writes were missed, or what follows would show little.
    assert len(seen) > 40
    return sorted(size for size in seen if size >= begun)


def test_a_trial_is_there_with_all_of_its_parameters_or_not_at_all(
    run: RunDirectory, sizes_seen, tmp_path: Path
) -> None:
    whole = run.journal.read_bytes()
    finished = {trial.number: trial.params for trial in read_studies(run.journal)["search"]}
    assert min(len(params) for params in finished.values()) >= 4
    cut = tmp_path / "cut.journal"
    for size in sizes_seen:
        cut.write_bytes(whole[:size])
        assert whole[size - 1 : size] == b"\n"
        for trial in read_studies(cut)["search"]:
            assert trial.params == finished[trial.number], f"after {size} bytes"


def test_a_reader_that_stops_after_some_bytes_has_the_records_that_end_there(
    run: RunDirectory, sizes_seen
) -> None:
    whole = run.journal.read_bytes()
    reader = FollowedJournal(run.journal)
    found = 0
    for until in range(0, len(whole), 97):
        reader.until = until
        records = list(reader.read_logs(found))
        found += len(records)
        assert found == whole[:until].count(b"\n")
    reader.until = len(whole)
    assert found + len(list(reader.read_logs(found))) == whole.count(b"\n")


def test_what_is_batched_is_read_back_before_it_is_written_and_once_after(
    run: RunDirectory,
) -> None:
    _, backend = open_journal(run.journal)
    before = run.journal.stat().st_size
    with backend.batch():
        backend.append_logs([{"op_code": 0, "n": 1}, {"op_code": 0, "n": 2}])
        assert run.journal.stat().st_size == before
        assert [record["n"] for record in backend.read_logs(0)] == [1, 2]
        with backend.batch():  # one inside the other is one
            backend.append_logs([{"op_code": 0, "n": 3}])
        assert run.journal.stat().st_size == before
    assert list(backend.read_logs(3)) == [] or [record["n"] for record in backend.read_logs(2)] == [
        3
    ]
    written = [json.loads(line) for line in run.journal.read_bytes().splitlines()]
    assert [record["n"] for record in written] == [1, 2, 3]
    backend.close()


def test_a_batch_is_written_after_an_exception_too(run: RunDirectory) -> None:
    _, backend = open_journal(run.journal)

    def interrupted() -> None:
        with backend.batch():
            backend.append_logs([{"op_code": 0, "n": 1}])
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert run.journal.read_bytes().count(b"\n") == 1
    # The lock is free: another one is taken at once.
    backend.append_logs([{"op_code": 0, "n": 2}])
    assert run.journal.read_bytes().count(b"\n") == 2
    backend.close()
