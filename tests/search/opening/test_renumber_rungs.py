"""Rungs are counted anew in a changed space: values stay at their epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from gsfl_tune.search.opening.renumber_rungs import epochs_of_rungs, numbers_after, renumber
from gsfl_tune.search.ray_tune.rung_epochs import rung_epochs
from gsfl_tune.search.study.reconcile import flat
from tests.search.experiments import experiment

# A training of 10 + 8 epochs where heads train at most 20, and where they train at most 10.
WIDE, NARROW = [5, 10, 10, 11, 12, 14, 18], [5, 10, 11, 12, 14, 18]
SCHEDULER = ("search.scheduler.grace=5", "search.scheduler.reduction=2")
EPOCHS = (*SCHEDULER, "training.finetune.epochs=8")
HEADS = "training.head.epochs={choice: [10, 20]}"


def _trial(state: TrialState, reached: Mapping[int, float], **attributes: Any) -> FrozenTrial:
    return create_trial(
        state=state,
        value=0.5 if state.is_finished() else None,
        intermediate_values=dict(reached),
        user_attrs=attributes,
    )


def _renumbered(trial: FrozenTrial, before: list[int], after: list[int]) -> FrozenTrial:
    renumber(trial, before, after)
    return trial


def test_rungs_are_those_where_a_trial_is_compared() -> None:
    for made, expected in (
        (experiment(*EPOCHS, HEADS), WIDE),
        (experiment(*EPOCHS, "training.head.epochs=10"), NARROW),
    ):
        config = made.configure({"training.head.epochs": 10})
        leaves = flat(config.model_dump(mode="json"))
        assert epochs_of_rungs(made, leaves) == rung_epochs(made, None)(config) == expected


def test_by_time_a_rung_is_where_the_defaults_have_theirs() -> None:
    """A trial's own epochs there depend on what was measured until then."""
    made = experiment(*EPOCHS, HEADS, "search.scheduler.by=time")
    leaves = flat(made.configure({"training.head.epochs": 20}).model_dump(mode="json"))
    found = epochs_of_rungs(made, leaves)
    assert found[:-1] == WIDE[:-1]
    # The end of another trial is not at 18 epochs of the defaults.
    assert found[-1] not in WIDE


@pytest.mark.parametrize(
    ("before", "after", "reached", "ended", "expected"),
    [
        # Old rungs 1 and 2 are both epoch 10.
        (WIDE, NARROW, range(6), False, [0, 1, 3, 4, 5]),
        (WIDE, NARROW, range(7), True, [0, 1, 3, 4, 5, 6]),
        (WIDE, NARROW, range(3), False, [0, 1]),
        # At epoch 10 it has not been compared with those that trained 20; behind it, it has.
        (NARROW, WIDE, range(2), False, [0, 1]),
        (NARROW, WIDE, range(2), True, [0, 1]),
        (NARROW, WIDE, range(3), False, [0, 1, 1, 2]),
        (NARROW, WIDE, range(6), True, [0, 1, 1, 2, 3, 4, 5]),
        # What was the end of the head stage is the end of the trial: its worker reports it again,
        # unless the trial was stopped there.
        ([5, 10, 10], [5, 10], range(2), False, [0]),
        ([5, 10, 10], [5, 10], range(2), True, [0, 1]),
        ([5, 10], [5, 10, 10], range(2), True, [0, 1, 1]),
        # Further trainings follow the end of the first one.
        ([5, 10], [5, 10, 10], range(4), False, [0, 1, 1, 2, 3]),
        ([5, 10, 10], [5, 10], range(4), False, [0, 2, 3]),
        # By time (an end is 0): defaults of 20 epochs, then of 10.
        ([5, 10, 20, 21, 0], [5, 10, 11, 0], range(4), False, [0, 1]),
    ],
)
def test_a_value_has_the_rungs_of_its_epoch(
    before: list[int], after: list[int], reached: range, ended: bool, expected: list[int]
) -> None:
    found = numbers_after(reached, before, after, ended=ended)
    assert found == dict(enumerate(expected))
    # The epochs say the same, whatever the numbers.
    last = len(before) - 1
    assert all(
        after[k] == before[old] for k, old in found.items() if old <= last and k < len(after)
    )


def test_the_end_stays_the_end_where_rungs_between_are_not_known() -> None:
    found = numbers_after(range(5), [5, 10, 20, 21, 0], [5, 10, 11, 0], ended=True)
    assert found == {0: 0, 1: 1, 3: 4}


def test_rungs_within_a_pretraining_keep_their_numbers() -> None:
    trial = _trial(TrialState.RUNNING, {-2: 0.9, -1: 0.8, 0: 5.0, 1: 10.0, 2: 10.0, 3: 11.0})
    _renumbered(trial, WIDE, NARROW)
    assert trial.intermediate_values == {-2: 0.9, -1: 0.8, 0: 5.0, 1: 10.0, 2: 11.0}
    waiting = _trial(TrialState.RUNNING, {-1: 0.8}, paused=-1)
    assert _renumbered(waiting, WIDE, NARROW).user_attrs["paused"] == -1


def test_numbers_besides_the_objective_follow_it() -> None:
    """With several objectives and folds, all of a trial's rungs are in its attributes."""
    reached = [5, 10, 10, 11, 12, 14, 18]
    trial = _trial(
        TrialState.RUNNING,
        {},
        rungs={str(k): float(epoch) for k, epoch in enumerate([*reached, 118])},
        others={str(k): {"size_mb": float(epoch)} for k, epoch in enumerate([*reached, 118])},
        replicates={"6": {"of": 18.0}, "7": {"of": 118.0}, "8": {"of": 218.0}},
        origin="defaults",
    )
    found = _renumbered(trial, WIDE, NARROW).user_attrs
    expected = {str(k): float(epoch) for k, epoch in enumerate([*NARROW, 118])}
    assert found["rungs"] == expected
    assert found["others"] == {k: {"size_mb": value} for k, value in expected.items()}
    # The third training was noted by a driver that died in front of its rung: it comes again.
    assert found["replicates"] == {"5": {"of": 18.0}, "6": {"of": 118.0}}
    assert found["origin"] == "defaults"


def test_nothing_changes_where_the_epochs_stay() -> None:
    # A trial may lack a rung that a space in between did not have.
    trial = _trial(TrialState.RUNNING, {0: 5.0, 2: 10.0}, paused=2)
    _renumbered(trial, WIDE, list(WIDE))
    assert trial.intermediate_values == {0: 5.0, 2: 10.0}
    assert trial.user_attrs["paused"] == 2


@pytest.mark.parametrize(
    ("before", "after", "waits", "expected"),
    [
        (WIDE, NARROW, 5, 4),
        (WIDE, NARROW, 2, 1),
        (NARROW, WIDE, 4, 5),
        # At the end of a further training.
        ([5, 10, 10], [5, 10], 3, 2),
        # Nothing is left of its training, or of its rung: it goes on and is judged at the next.
        ([5, 10, 10], [5, 10], 1, None),
        ([5, 10, 20, 21, 0], [5, 10, 11, 0], 3, None),
        ([20, 0], [10, 0], 0, None),
    ],
)
def test_a_paused_trial_waits_at_the_same_epoch(
    before: list[int], after: list[int], waits: int, expected: int | None
) -> None:
    trial = _trial(TrialState.RUNNING, dict.fromkeys(range(waits + 1), 1.0), paused=waits)
    assert _renumbered(trial, before, after).user_attrs["paused"] == expected
    assert expected is None or expected == max(trial.intermediate_values)
