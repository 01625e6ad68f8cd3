"""Earlier checkpoints stay beside the last one, as many as were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsfl_tune.run.checkpoints import discard, older, set_aside, stored


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.pt"


def save(path: Path, epochs: int, keep: int) -> None:
    """Saves one checkpoint an epoch, as a training does."""
    for epoch in range(1, epochs + 1):
        set_aside(path, keep)
        # Another file in its place: a write into the old one would change what was set aside.
        new = path.with_name("new")
        new.write_text(str(epoch))
        new.replace(path)


@pytest.mark.parametrize("keep", [1, 2, 3, 4])
def test_the_last_checkpoints_are_kept_newest_first(path: Path, keep: int) -> None:
    save(path, 6, keep)
    assert [int(each.read_text()) for each in stored(path)] == list(range(6, 6 - keep, -1))
    assert older(path) == stored(path)[1:]
    assert len(list(path.parent.iterdir())) == keep


def test_more_than_nine_are_ordered_by_number(path: Path) -> None:
    save(path, 12, 12)
    assert [int(each.read_text()) for each in stored(path)] == list(range(12, 0, -1))


def test_fewer_are_kept_from_the_next_save_on(path: Path) -> None:
    save(path, 5, 4)
    set_aside(path, 2)
    path.write_text("6")
    assert len(stored(path)) == 2


def test_a_write_that_was_cut_short_leaves_the_last_one_and_its_copy(path: Path) -> None:
    save(path, 2, 2)
    # The next one is set aside, and the process ends before it is replaced.
    set_aside(path, 2)
    assert [each.read_text() for each in stored(path)] == ["2", "2"]


def test_nothing_is_stored_before_the_first_and_after_they_are_discarded(path: Path) -> None:
    assert stored(path) == []
    set_aside(path, 3)
    assert stored(path) == []
    save(path, 4, 3)
    other = path.with_name("checkpoint.notes.pt")
    other.write_text("of the user")
    discard(path)
    assert list(path.parent.iterdir()) == [other]
