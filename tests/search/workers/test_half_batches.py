"""A training that runs out of memory is made again with half the batch, or says why not."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from gsfl_tune.search.workers.half_batches import TooLarge, with_half_batches
from tests.search.starvation import TOO_MUCH


def _ask_for_too_much() -> None:
    torch.empty(TOO_MUCH, dtype=torch.uint8)


def test_an_attempt_that_fits_runs_once() -> None:
    tried: list[int] = []
    released: list[int] = []

    def attempt(pieces: int) -> str:
        tried.append(pieces)
        return "done"

    found = with_half_batches(attempt, 1, release=lambda: released.append(1))
    assert found == ("done", 1)
    assert tried == [1]
    assert released == []


def test_an_attempt_out_of_memory_is_let_go_and_made_again_in_two_pieces() -> None:
    events: list[object] = []

    def attempt(pieces: int) -> str:
        events.append(pieces)
        if pieces == 1:
            _ask_for_too_much()
        return "done"

    found = with_half_batches(attempt, 1, release=lambda: events.append("released"))
    assert found == ("done", 2)
    assert events == [1, "released", 2]


def test_the_second_attempt_has_the_memory_of_the_first() -> None:
    """What the first one held, the traceback of its error alone keeps alive."""
    held: list[weakref.ref[torch.nn.Module]] = []
    alive: list[bool] = []

    def attempt(pieces: int) -> None:
        alive.extend(model() is not None for model in held)
        model = torch.nn.Linear(2, 2)
        model.itself = [model]  # only the collector frees a circle
        held.append(weakref.ref(model))
        if pieces == 1:
            _ask_for_too_much()

    gc.disable()
    try:
        with_half_batches(attempt, 1)
    finally:
        gc.enable()
    assert alive == [False]


def test_half_the_batch_that_does_not_fit_is_said_with_what_could_not_be_allocated() -> None:
    tried: list[int] = []

    def attempt(pieces: int) -> None:
        tried.append(pieces)
        _ask_for_too_much()

    reason = "out of memory, at half the batch too: .*can't allocate memory"
    with pytest.raises(TooLarge, match=reason):
        with_half_batches(attempt, 1)
    assert tried == [1, 2]
    # Known beforehand to need two pieces: there is no third way.
    with pytest.raises(TooLarge, match=reason):
        with_half_batches(attempt, 2)
    assert tried == [1, 2, 2]


def test_other_errors_pass_and_a_disk_that_refuses_the_release_is_none() -> None:
    tried: list[int] = []

    def broken(pieces: int) -> None:
        tried.append(pieces)
        raise ValueError("model.groups: found 500")

    with pytest.raises(ValueError, match="found 500"):
        with_half_batches(broken, 1)
    assert tried == [1]

    def full() -> None:
        raise OSError("No space left on device")

    def attempt(pieces: int) -> int:
        if pieces == 1:
            _ask_for_too_much()
        return pieces

    assert with_half_batches(attempt, 1, release=full) == (2, 2)
