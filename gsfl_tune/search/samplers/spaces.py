"""The spaces of a run's two studies."""

from __future__ import annotations

from typing import Any

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.fields import leaves
from gsfl_tune.experiment.heads import CONTROL
from gsfl_tune.experiment.loss_terms import SHARED_TERMS
from gsfl_tune.experiment.nodes import read_yaml
from gsfl_tune.experiment.space import Space
from gsfl_tune.run import RunDirectory, StudyName

# Keys without effect on a plain head: they get the schema's defaults in the control's own search.
_GSFL_ONLY = (
    "loss.reconstruction",
    "loss.class_center",
    "loss.shared_center",
    "loss.center_rate",
    "loss.center_init",
    "loss.reconstruction_target",
    "model.decoder",
    "model.groups.count",
    "model.groups.method",
    "model.groups.taxonomy",
)


def plain_space(experiment: Experiment) -> Experiment:
    """Returns the space of the control's own search: a plain head without keys of GSFL-Net."""
    plain: dict[str, Any] = {"model.head": CONTROL, "search.enqueue": []}
    sections = ("loss.terms.", *(f"loss.{name}." for name in SHARED_TERMS))
    terms = [path for path in leaves() if path.startswith(sections)]
    return experiment.fixed(plain | dict.fromkeys([*_GSFL_ONLY, *terms]))


def unchecked(text: str) -> Experiment:
    """Loads an experiment that was checked when it was written; its files are not checked again."""
    root = read_yaml(text, "experiment", [])
    if root is None or not isinstance(root.value, dict):
        raise ValueError("no experiment")
    return Experiment(root, "experiment", [], None)


def own_experiment(run: RunDirectory) -> Experiment:
    """Reads the file of a run; images and weights may be elsewhere since it was written.

    Args:
        run: The run.

    Raises:
        UserError: When the file cannot be read.
    """
    try:
        return unchecked(run.experiment_file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{run.experiment_file}: cannot be read ({error})") from error


def run_spaces(run: RunDirectory) -> dict[StudyName, Space]:
    """Returns the space of each study of a run; none for a directory without an experiment.

    Args:
        run: The run.
    """
    try:
        experiment = unchecked(run.experiment_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {"search": experiment.space, "control": plain_space(experiment).space}
