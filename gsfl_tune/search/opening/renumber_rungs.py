"""New numbers for the rungs of a trial whose space is changed.

The rungs of a space are those of its longest stages. If the longest ones change, the same rung of
a trial, which is an epoch, has another number. Values must keep their epochs: numbers decide what
is compared, and where a trial is complete.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from optuna.trial import FrozenTrial

from gsfl_tune.experiment import Experiment
from gsfl_tune.search.ray_tune.rung_epochs import largest_timeline
from gsfl_tune.search.samplers.history import OTHERS, PAUSED, RUNG_EPOCHS, RUNGS
from gsfl_tune.search.workers.replicates import REPLICATES
from gsfl_tune.training.timeline import STAGES, Timeline

Value = TypeVar("Value")

# In place of an epoch: the end of a trial, where that is no epoch of the defaults.
_END = 0


def epochs_of_rungs(experiment: Experiment, leaves: Mapping[str, Any]) -> list[int]:
    """Returns the epoch of each rung of a trial's first training, from rung 0 to its end.

    By time the epochs of a rung change with the prices. There a rung is named by its epoch in the
    defaults' training, which says when it is.

    Args:
        experiment: The space whose rungs are meant.
        leaves: The trial's configuration by dotted path; it may be outside of the space.
    """
    defaults = experiment.defaults()
    scheduler = defaults.search.scheduler
    by_time = scheduler.by == "time"
    own = Timeline(tuple(leaves[f"training.{each.name}.epochs"] for each in STAGES))
    rungs = (Timeline.of(defaults) if by_time else own).rungs(
        largest_timeline(experiment), grace=scheduler.grace, reduction=scheduler.reduction
    )
    epochs = [rung.epoch for rung in rungs]
    return [*epochs[:-1], _END] if by_time else epochs


def numbers_after(
    reached: Collection[int], before: Sequence[int], after: Sequence[int], *, ended: bool
) -> dict[int, int]:
    """Finds the rungs that a trial has reached among those of another space.

    Several rungs have the same epoch where a stage is shorter than the longest one. At the last
    epoch that a trial has reported, it has as many of them as before; at earlier ones it has all.
    Rungs within a pretraining (below 0) keep their numbers.

    Args:
        reached: Rungs that the trial has reported.
        before: Epoch of each rung of its first training; further trainings have one rung each.
        after: The same in the other space.
        ended: Whether the trial has ended. Else its end is only where it was before: the worker
            reports it again, with what is measured there.

    Returns:
        The old number by new number, in order.
    """
    last, end = len(before) - 1, len(after) - 1
    found = {k: k for k in reached if k < 0}
    for k, epoch in enumerate(after if ended else after[:-1]):
        same = [old for old in sorted(reached) if 0 <= old <= last and before[old] == epoch]
        place = after[:k].count(epoch)
        if same and (place < len(same) or max(reached) > same[-1] or same[-1] == last):
            found[k] = same[min(place, len(same) - 1)]
    found |= {old - last + end: old for old in reached if old >= last}
    return dict(sorted(found.items()))


def renumber(trial: FrozenTrial, before: Sequence[int], after: Sequence[int]) -> None:
    """Gives a trial the rungs of another space, wherever the study keeps them.

    Args:
        trial: The trial, which is changed.
        before: Epoch of each rung until now, see `epochs_of_rungs`.
        after: The same in the other space.
    """
    if list(before) == list(after):
        return
    attributes = trial.user_attrs
    attributes.pop(RUNG_EPOCHS, None)
    reached = {*trial.intermediate_values, *map(int, attributes.get(RUNGS, {}))}
    numbers = numbers_after(reached, before, after, ended=trial.state.is_finished())
    trial.intermediate_values = _picked(trial.intermediate_values, numbers)
    for key in (RUNGS, OTHERS, REPLICATES):
        if key in attributes:
            known = {int(old): value for old, value in attributes[key].items()}
            attributes[key] = {str(k): each for k, each in _picked(known, numbers).items()}
    if (waits := attributes.get(PAUSED)) is not None and waits >= 0:
        k = max(numbers, default=-1)
        stays = k >= 0 and _milestone(before, numbers[k]) == _milestone(before, waits)
        # Without its rung it goes on, and is judged at the next one.
        attributes[PAUSED] = k if stays else None


def renumbered(
    values: Mapping[int, float], before: Sequence[int], after: Sequence[int]
) -> dict[int, float]:
    """Returns the values of an ended trial at the rungs of another space, see `renumber`."""
    return _picked(values, numbers_after(values, before, after, ended=True))


def _picked(values: Mapping[int, Value], numbers: Mapping[int, int]) -> dict[int, Value]:
    return {k: values[old] for k, old in numbers.items() if old in values}


def _milestone(epochs: Sequence[int], k: int) -> tuple[int, int]:
    """Returns the epoch of a rung, and the number of the training that it ends behind the first."""
    return epochs[min(k, len(epochs) - 1)], max(0, k - len(epochs) + 1)
