"""What is left of a change of the space whose driver was killed before it wrote ``run.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gsfl_tune.experiment import Experiment
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.manifest import Manifest
from gsfl_tune.search.samplers.spaces import own_experiment, unchecked
from gsfl_tune.search.study.compatibility import differences
from gsfl_tune.search.study.reconcile import study_signature

# Study attribute with the experiment of the last change.
SPACE = "experiment"


def unnoticed_change(run: RunDirectory, attributes: Mapping[str, Any]) -> float | None:
    """Returns when the space was changed, if no driver has begun since; else None.

    The journal has the trials of the new space then. ``experiment.yaml`` may be of the old one, and
    so are the results.

    Args:
        run: The run.
        attributes: Those of its search.
    """
    changes = attributes.get("changes")
    if not changes:
        return None
    # As `Manifest` rounds.
    when = round(changes[-1]["time"], 2)
    return when if when > Manifest(run).last_begin() else None


def begun_with(run: RunDirectory, attributes: Mapping[str, Any]) -> Experiment:
    """Returns the experiment of a run's trials; its images may be elsewhere by now.

    Args:
        run: The run.
        attributes: Those of its search.

    Raises:
        UserError: When the run's own file cannot be read.
    """
    own = own_experiment(run)
    if SPACE in attributes and differences(attributes["fingerprint"], study_signature(own)):
        return unchecked(attributes[SPACE])
    return own


def in_file(run: RunDirectory, experiment: Experiment) -> bool:
    """Returns whether an experiment has the space of the run's own file."""
    return not differences(study_signature(own_experiment(run)), study_signature(experiment))
