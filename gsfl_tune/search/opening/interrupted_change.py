"""What a change of the space leaves, whose driver was killed before it wrote ``run.json`` again."""

from __future__ import annotations

import json

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.manifest import Manifest
from gsfl_tune.search.study.compatibility import differences
from gsfl_tune.search.study.journal import study_attributes
from gsfl_tune.search.study.reconcile import study_signature

# Study attribute with the experiment of the last change.
SPACE = "experiment"


def unnoticed_change(run: RunDirectory) -> float | None:
    """Returns when the space was changed, if the driver that did so was killed at once.

    Its journal has the trials of the new space then. ``experiment.yaml`` may be of the old one, and
    so are the results.
    """
    if not run.journal.exists():
        return None
    changes = study_attributes(run.journal, "search").get("changes")
    # As `Manifest` rounds.
    when = round(changes[-1]["time"], 2) if changes else 0.0
    return when if when > Manifest(run).last_begin() else None


def begun_with(run: RunDirectory, data: DataConfig) -> Experiment:
    """Returns the experiment of a run's trials, with the current paths of the images.

    Args:
        run: The run.
        data: Where the images are.
    """
    places = {"data.path": data.path, "data.root": data.root}
    moved = [f"{key}={json.dumps(place)}" for key, place in places.items() if place is not None]
    own = Experiment.load(run.experiment_file, moved)
    attributes = study_attributes(run.journal, "search")
    if SPACE in attributes and differences(attributes["fingerprint"], study_signature(own)):
        return Experiment.parse(attributes[SPACE], file=str(run.journal), overrides=moved)
    return own


def in_file(run: RunDirectory, experiment: Experiment) -> bool:
    """Returns whether an experiment has the space of the run's own file."""
    own = study_signature(Experiment.load(run.experiment_file))
    return not differences(own, study_signature(experiment))
