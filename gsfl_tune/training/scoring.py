"""Which metrics a training computes: cheap ones after an epoch, all of them at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal, Protocol

import numpy as np

from gsfl_tune.data.cost_matrix import load_cost_matrix
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.metrics import RANKED, VALIDATION, ranked
from gsfl_tune.experiment.search_config import SearchConfig
from gsfl_tune.methods import Method
from gsfl_tune.training.predictions import Predictions


class Measured(Protocol):
    """Describes a stage that knows more of validation images than their scores."""

    def measured(self) -> dict[str, float]:
        """Returns numbers of the last validation."""


def numbers_of_method(
    method: Method, predictions: Predictions, stage: Measured
) -> dict[str, float]:
    """Returns what a method computes after an epoch, as far as it is finite: JSON has no other."""
    found = method.epoch_metrics(predictions.logits, predictions.labels)
    found = {**stage.measured(), **found}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def costs_of(search: SearchConfig, classes: Sequence[str]) -> np.ndarray | None:
    """Returns the (C, C) costs of answers that a search goes by; None where it names no file.

    Whatever is compared with a training is scored with the same costs.

    Args:
        search: The section `search`.
        classes: C class names, in the order of the labels.

    Raises:
        UserError: If the file of costs cannot be read.
    """
    path = search.cost_matrix
    return None if path is None else load_cost_matrix(path, classes)


class Scoring:
    """Scores the predictions of one training.

    Args:
        search: The section `search`, which says what the search goes by and where costs are.
        classes: Returns the class names, in the order of the labels.
    """

    def __init__(self, search: SearchConfig, classes: Callable[[], Sequence[str]]) -> None:
        self._search = search
        self._classes = classes
        self._wanted = ranked(search.named)

    def of_epoch(self, predictions: Predictions) -> dict[str, float]:
        """Returns the metrics of validation images after an epoch.

        Raises:
            UserError: If the search goes by a metric that these images do not define, or the file
                of costs cannot be read.
        """
        found = predictions.metrics(ranked=self._wanted, costs=self._costs, own_threshold=True)
        if self._wanted - found.keys():
            raise UserError(
                f"{VALIDATION}/auroc: found validation images of one class, allowed of two or more"
            )
        return found

    def of(self, part: Literal["validation", "test"], predictions: Predictions) -> dict[str, float]:
        """Returns all metrics, also those that take long to compute.

        Args:
            part: Part of the images.
            predictions: Their predictions.

        Raises:
            UserError: If the file of costs cannot be read.
        """
        own = part == VALIDATION
        return predictions.metrics(ranked=RANKED, costs=self._costs, own_threshold=own)

    @cached_property
    def _costs(self) -> np.ndarray | None:
        return costs_of(self._search, self._classes())
