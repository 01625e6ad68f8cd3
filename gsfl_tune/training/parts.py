"""The annotated parts that a training learns to find."""

from __future__ import annotations

import numpy as np

from gsfl_tune.data import Annotations
from gsfl_tune.data.part_boxes import known_parts, part_names
from gsfl_tune.data.sources import Source
from gsfl_tune.experiment import Experiment, ExperimentError, Problem
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.methods import PART_METHODS
from gsfl_tune.training.workspace import Workspace

# Points of the official data sets; of COCO's persons, for sources whose files say which they have.
_POINTS = {"cub": 15, "nabirds": 11}
_USUAL = 17
_ALLOWED = (
    "another method, or images with boxes or points: sources cub, nabirds, coco, dogs, cars, or "
    "data.box_columns and data.point_columns (sources csv, jsonl)"
)


def training_parts(config: Config, workspace: Workspace, positions: np.ndarray) -> list[str]:
    """Returns the names of the parts that a training learns to find.

    Args:
        config: The configuration.
        workspace: Data of this node.
        positions: Positions of the training images.

    Returns:
        Nothing where the method learns none.

    Raises:
        UserError: If no training image has a known part.
    """
    method = config.training.method
    if method not in PART_METHODS or not config.training.finetune.epochs:
        return []
    whole = config.training.part_rcnn.whole
    found = workspace.dataset.annotations("pool")
    if problem := parts_problem(config, found.rows(positions), "training image"):
        raise UserError(f"training.method: {problem}")
    return part_names(found, whole=whole)


def parts_problem(config: Config, annotations: Annotations, what: str = "image") -> str | None:
    """Says what parts a configuration learns without images that show some, or None.

    Args:
        config: A configuration whose method learns parts.
        annotations: Of its images.
        what: What each of them is, in words.
    """
    whole = config.training.part_rcnn.whole
    if known_parts(annotations, whole=whole):
        return None
    boxed = known_parts(annotations, whole=True)
    allowed = "training.part_rcnn.whole: true, as there are boxes of objects" if boxed else _ALLOWED
    return f"found {config.training.method}, but no {what} has a known part; allowed {allowed}"


def refuse_without_parts(experiment: Experiment, source: Source) -> None:
    """Refuses methods that learn parts where no image of a source shows one.

    Raises:
        ExperimentError: If so.
        UserError: If a file of annotations cannot be read.
    """
    path = "training.method"
    for name in experiment.values(path):
        if name not in PART_METHODS:
            continue
        config = experiment.fixed({path: name}).defaults()
        if problem := parts_problem(config, source.annotations()):
            raise ExperimentError([Problem(*experiment.locate(path), path, problem)])


def expected_parts(data: DataConfig) -> int:
    """Returns the number of parts of a source, an estimate where its files are not read yet."""
    points = len(data.point_columns or ()) or _POINTS.get(data.source, 0)
    if not points and data.source in ("auto", "coco", "csv", "jsonl"):
        points = 0 if data.box_columns else _USUAL
    return points + 1
