"""Items that arrive over time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from threading import Event

import pytest

from gsfl_tune.data.arriving import as_they_come


def test_what_is_there_is_had_before_the_next_comes():
    """Each item is only made after those before it were seen in a run that ended."""
    seen = [Event() for _ in range(5)]

    def produced() -> Iterator[int]:
        for number in range(5):
            yield number
            assert seen[number].wait(60)

    found = []
    for run in as_they_come(produced()):
        items = list(run)
        found += items
        for number in items:
            seen[number].set()
    assert found == list(range(5))


def test_what_is_there_at_once_is_one_run(monkeypatch):
    # However busy the machine is.
    monkeypatch.setattr("gsfl_tune.data.arriving._PATIENCE", 60.0)
    (run,) = [list(run) for run in as_they_come(range(1000))]
    assert run == list(range(1000))
    assert [list(run) for run in as_they_come([])] == [[]]


def test_an_error_comes_after_the_items_before_it():
    def produced() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("gone")

    items = chain.from_iterable(as_they_come(produced()))
    assert list(islice(items, 2)) == [1, 2]
    with pytest.raises(OSError, match="gone"):
        next(items)
