"""Adapts the class groups of an experiment to its data, and checks its tables of classes."""

from __future__ import annotations

from pathlib import Path

from gsfl_tune.data.cost_matrix import load_cost_matrix
from gsfl_tune.experiment import Experiment, ExperimentError, Problem
from gsfl_tune.experiment.heads import GROUPED_HEADS
from gsfl_tune.grouping import load_taxonomy
from gsfl_tune.training.workspace import Workspace

# Methods that choose the number of groups.
_UNCOUNTED = {"taxonomy", "single"}


def fit_groups(experiment: Experiment, workspace: Workspace) -> Experiment:
    """Limits the number of groups to half the number of classes, and checks taxonomies and costs.

    A group needs several classes that share features, so the upper bound of a range is lowered.

    Raises:
        UserError: For a fixed count above the number of classes, a taxonomy that lacks classes, or
            costs that do not fit the classes.
    """
    classes = workspace.dataset.classes
    matrix = experiment.defaults().search.cost_matrix
    if matrix is not None:
        load_cost_matrix(matrix, classes)
    experiment = experiment.clamp("model.groups.count", max(1, len(classes) // 2))
    if not set(GROUPED_HEADS) & set(experiment.values("model.head")):
        return experiment
    problems: list[Problem] = []
    largest = max(experiment.values("model.groups.count"))
    if largest > len(classes) and set(experiment.values("model.groups.method")) - _UNCOUNTED:
        path = "model.groups.count"
        text = f"found {largest}, allowed at most {len(classes)}, the number of classes"
        problems.append(Problem(*experiment.locate(path), path, text))
    for file in experiment.values("model.groups.taxonomy"):
        try:
            if file is not None:
                load_taxonomy(Path(file), classes)
        except ValueError as error:
            path = "model.groups.taxonomy"
            problems.append(Problem(*experiment.locate(path), path, str(error)))
    if problems:
        raise ExperimentError(problems)
    return experiment
