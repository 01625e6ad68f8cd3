"""Weights of the hub, pinned to a commit: what a run begins with is what it goes on with.

A name such as ``hf-hub:OWNER/NAME`` means the newest commit. It is replaced by the name of that
commit before anything is trained: trials on other nodes and days then have the same weights, and
so has whoever reads the experiment or the bundle later. What was replaced by what is kept in the
run directory, as a resume is given the file of its user again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from gsfl_tune.activity import activity
from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.models import WeightsError, hub_place, look_up
from gsfl_tune.run import read_json, write_json
from gsfl_tune.run.layout import PINS_FILE

Pins = dict[str, str]
"""Names of the hub with a full commit, by what a user wrote."""

_LEAVES = ("model.weights", "model.weights_b")


def pin_weights(
    experiment: Experiment,
    known: Mapping[str, str],
    notice: Callable[[str], None],
    *,
    searched: bool = True,
) -> tuple[Experiment, Pins]:
    """Returns the experiment with every name of the hub replaced by one that names a full commit.

    Args:
        experiment: The experiment.
        known: What names were replaced by when the run began.
        notice: Receives a line for each name that is replaced now.
        searched: Whether all of its values are used, or the defaults alone.

    Raises:
        UserError: If the hub cannot be reached, or there is no such model.
    """
    config = experiment.defaults().model
    pins: Pins = {}
    for leaf, default in zip(_LEAVES, (config.weights, config.weights_b), strict=True):
        for asked in experiment.values(leaf) if searched else [default]:
            if asked is None or asked in pins:
                continue
            place = hub_place(asked)
            if place is None or place.pinned:
                continue
            if asked in known:
                pins[asked] = known[asked]
                continue
            try:
                with activity(f"looking for {asked}"):
                    pins[asked] = str(look_up(place).place)
            except WeightsError as error:
                raise UserError(f"{leaf}: {error}") from error
            notice(f"{asked} is now {pins[asked]}: the latter always means these weights")
    return (experiment.renamed(pins) if pins else experiment), pins


def read_pins(directory: Path) -> Pins:
    """Returns what names of the hub were replaced by when a run or a training began.

    Args:
        directory: Its directory.

    Raises:
        UserError: If the file there cannot be read.
    """
    file = directory / PINS_FILE
    if not file.exists():
        return {}
    try:
        return {str(asked): str(pinned) for asked, pinned in dict(read_json(file)).items()}
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from error


def keep_pins(directory: Path, pins: Mapping[str, str]) -> None:
    """Writes what names of the hub were replaced by; nothing where there were none.

    Args:
        directory: Of the run or training; it exists.
        pins: As `pin_weights` returned them.
    """
    file = directory / PINS_FILE
    if pins or file.exists():
        write_json(file, dict(pins))
