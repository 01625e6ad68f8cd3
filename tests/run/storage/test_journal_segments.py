from __future__ import annotations

import json
from pathlib import Path

import pytest

from gsfl_tune.experiment import UserError
from gsfl_tune.run.storage import Storage, open_storage
from gsfl_tune.run.storage.journal_segments import JournalPublisher, find_segments, read_journal


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "kept"), create=True)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


def _grow(journal: Path, number: int) -> None:
    with journal.open("a") as file:
        file.write(json.dumps({"number": number, "text": "x" * (number % 7)}) + "\n")


def _stored(storage: Storage) -> bytes:
    return read_journal(storage, find_segments(storage.list()))


def test_a_journal_published_piece_by_piece_is_the_journal(storage: Storage, journal: Path) -> None:
    publisher = JournalPublisher(storage, journal, [])
    publisher.publish()
    assert _stored(storage) == b""
    most = 0
    for number in range(300):
        _grow(journal, number)
        publisher.publish()
        assert _stored(storage) == journal.read_bytes()
        most = max(most, len(storage.list()))
    assert most < 50


def test_a_line_that_is_being_written_waits(storage: Storage, journal: Path) -> None:
    publisher = JournalPublisher(storage, journal, [])
    journal.write_bytes(b'{"a":1}\n{"b"')
    publisher.publish()
    assert _stored(storage) == b'{"a":1}\n'
    journal.write_bytes(b'{"a":1}\n{"b":2}\n')
    publisher.publish()
    assert _stored(storage) == b'{"a":1}\n{"b":2}\n'


def test_the_next_driver_replaces_what_the_last_one_left(storage: Storage, journal: Path) -> None:
    first = JournalPublisher(storage, journal, [])
    for number in range(5):
        _grow(journal, number)
        first.publish()
    left = journal.read_bytes()
    # On another machine; the first driver, cut off but alive, goes on.
    other = journal.with_name("other.journal")
    other.write_bytes(left)
    second = JournalPublisher(storage, other, find_segments(storage.list()))
    _grow(other, 100)
    second.publish()
    _grow(journal, 200)
    first.publish()
    _grow(other, 101)
    second.publish()
    assert _stored(storage) == other.read_bytes()
    third = JournalPublisher(storage, other, find_segments(storage.list()))
    third.publish()
    assert _stored(storage) == other.read_bytes()


def test_pieces_that_a_kill_left_beside_the_merged_one_do_no_harm(
    storage: Storage, journal: Path
) -> None:
    publisher = JournalPublisher(storage, journal, [])
    _grow(journal, 0)
    publisher.publish()
    _grow(journal, 1)
    publisher.publish()
    data = journal.read_bytes()
    storage.put(f"journal/00001/000000000000-{len(data):012}.jsonl", data)
    assert _stored(storage) == data


def test_a_missing_piece_is_told(storage: Storage, journal: Path) -> None:
    publisher = JournalPublisher(storage, journal, [])
    for number in range(3):
        _grow(journal, number)
        publisher.publish()
    storage.delete(sorted(storage.list())[1])
    with pytest.raises(UserError, match="hole"):
        _stored(storage)
