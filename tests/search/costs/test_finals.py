"""What race and retrains take."""

from __future__ import annotations

import pytest

from gsfl_tune.search.costs.finals import finals_seconds


def test_without_a_control_there_is_less_to_train() -> None:
    assert finals_seconds(3, 3, 100, 100, 2, "off") < finals_seconds(3, 3, 100, 100, 2, "matched")


def test_finals_use_the_slots_there_are() -> None:
    one, many = (finals_seconds(3, 3, 100, 110, slots, "matched") for slots in (1, 9))
    assert one == pytest.approx(900 + 9 * 110)
    assert many == pytest.approx(100 + 110)
    # Of nine trainings of the race four are done; a tuned control's finalists race for themselves.
    left = finals_seconds(3, 3, 100, 110, 1, "matched", owed=5)
    assert left == pytest.approx(one - 400)
    tuned = [finals_seconds(3, 3, 100, 110, 1, "tuned", owed=owed) for owed in (None, 0)]
    assert tuned[0] - tuned[1] == pytest.approx(900)


def test_a_round_takes_as_long_as_its_longest_training() -> None:
    # A control that is validated beside the retrains may answer for more images than they do.
    assert finals_seconds(2, 1, 120, 110, 9, "matched") == 120 + 120
    assert finals_seconds(2, 1, 120, 110, 9, "raced") == 120 + 110
