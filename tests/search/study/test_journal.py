"""What a reader finds in the journal, wherever the writer was when it looked."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from gsfl_tune.search.study.journal import FollowedJournal, open_journal, read_studies
from tests.search.experiments import experiment

# An audit hook stays for good: it looks while this names a journal.
_watched: dict[str, list[int]] = {}


def _on_open(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _watched:
        sizes = _watched.get(str(arguments[0]))
        if sizes is not None:
            sizes.append(os.stat(str(arguments[0])).st_size)


sys.addaudithook(_on_open)


@pytest.fixture
def sizes_left(run: RunDirectory) -> list[int]:
    """Sizes that the journal has between two writes: those that a killed driver may leave."""
    study = open_study(experiment(), run)
    _watched[str(run.journal)] = sizes = []
    for number in range(25):
        asked = study.ask()
        study.report(asked.number, 0, 0.5)
        match number % 4:
            case 0:
                study.complete(asked.number, 0.1 * number, 1)
            case 1:
                study.prune(asked.number, 0.1 * number, 1)
            case 2:
                study.fail(asked.number, "it broke")
            case 3:
                study.cut(asked.number, "the time was up")
    study.close()
    _watched.clear()
    sizes.append(run.journal.stat().st_size)
    assert len(set(sizes)) >= 75
    return sorted(set(sizes))


def test_no_driver_finds_the_end_of_a_trial_without_its_state(
    run: RunDirectory, sizes_left: list[int], tmp_path: Path
) -> None:
    whole = run.journal.read_bytes()
    finished = {trial.number: trial for trial in read_studies(run.journal)["search"]}
    cut = tmp_path / "cut.journal"
    for size in sizes_left:
        cut.write_bytes(whole[:size])
        for trial in read_studies(cut)["search"]:
            assert trial.params == finished[trial.number].params
            if not trial.state.is_finished():
                # Its last rung, and why it ended, come with its state.
                assert set(trial.intermediate_values) <= {0}, f"after {size} bytes"
                assert not {"reason", "ended"} & trial.user_attrs.keys(), f"after {size} bytes"
    states = {trial.state.name for trial in finished.values()}
    assert states == {"COMPLETE", "PRUNED", "FAIL"}


@pytest.mark.parametrize("left", [b'{"op_code": 5, "wor', b'{"op_code": 5, "wor\n', b"\0\0\0\0\n"])
def test_a_line_that_was_not_written_whole_is_cut_off(run: RunDirectory, left: bytes) -> None:
    study = open_study(experiment(), run)
    study.complete(study.ask().number, 0.5, 1)  # type: ignore[union-attr]
    study.close()
    whole = run.journal.read_bytes()
    run.journal.write_bytes(whole + left)
    open_journal(run.journal)
    assert run.journal.read_bytes() == whole
    assert [trial.value for trial in read_studies(run.journal)["search"]] == [0.5]


def test_a_reader_that_stops_after_some_bytes_has_the_records_that_end_there(
    run: RunDirectory, sizes_left
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
    assert [record["n"] for record in backend.read_logs(2)] == [3]
    assert list(backend.read_logs(3)) == []
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
