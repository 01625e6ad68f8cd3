"""One training in this process, without Ray: opens the data, runs epochs, keeps checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gsfl_tune.arguments import call, instance, path_of
from gsfl_tune.data import square_side
from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.run.layout import CHECKPOINT_FILE
from gsfl_tune.training.checkpoint import CheckpointError
from gsfl_tune.training.fit_groups import fit_groups
from gsfl_tune.training.fit_precision import refuse_unfit_precision
from gsfl_tune.training.pin_weights import keep_pins, pin_weights, read_pins
from gsfl_tune.training.training import Training
from gsfl_tune.training.workspace import Workspace


def train(
    experiment: Experiment,
    directory: str | Path,
    *,
    cache_dir: str | Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
    notice: Callable[[str], None] = lambda line: None,
) -> Training:
    """Trains the default configuration of an experiment, without Ray.

    Args:
        experiment: The experiment; its distributions take their defaults.
        directory: Folder of epochs and checkpoint; a training found there is continued.
        cache_dir: Root of the node's caches.
        on_epoch: Called with the record of every epoch.
        notice: Called with what people must know before it begins.

    Raises:
        UserError: When the data or the configuration cannot be used.
        NonFiniteLoss: When the training diverges.
    """
    instance(
        Experiment, experiment, "train: experiment", "an Experiment, as Experiment.load returns"
    )
    directory = path_of(directory, "train: directory")
    call(on_epoch, "train: on_epoch", "a function that takes the record of an epoch")
    call(notice, "train: notice", "a function that takes a line of text")
    caches = None if cache_dir is None else path_of(cache_dir, "train: cache_dir")
    refuse_unfit_precision(experiment)
    known = read_pins(directory) if (directory / CHECKPOINT_FILE).exists() else {}
    experiment, pins = pin_weights(experiment, known, notice, searched=False)
    workspace = open_workspace(experiment, caches)
    experiment = fit_groups(experiment, workspace)
    training = Training(experiment.defaults(), workspace, directory)
    begun = training.checkpoint_path.exists()
    for line in workspace.teacher_notices(training.config, begun=begun):
        notice(line)
    try:
        # Epochs logged after the last checkpoint are trained and logged again.
        training.restore()
    except CheckpointError as error:
        raise broken_checkpoint(error) from error
    keep_pins(directory, pins)
    while not training.finished:
        on_epoch(training.run_epoch())
        training.save()
    return training


def open_workspace(experiment: Experiment, cache_dir: Path | None = None) -> Workspace:
    """Opens an experiment's data, decoded large enough for every image size of its space.

    Raises:
        UserError: When the data cannot be used.
    """
    side = square_side(experiment.largest_image_size)
    return Workspace.open(experiment.defaults().data, side=side, cache_dir=cache_dir)


def broken_checkpoint(error: CheckpointError) -> UserError:
    """Makes the message for a checkpoint that cannot be read."""
    return UserError(f"{error}; remove the file to train from the beginning")
