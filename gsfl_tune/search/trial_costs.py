"""What the trainings of a run cost on its slots, known before they begin and better afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gsfl_tune.data import Dataset
from gsfl_tune.experiment.config import Config
from gsfl_tune.training.fingerprint import FitOn
from gsfl_tune.training.pricing import Costs, Measured, Work, training_work


class TrialCosts:
    """Prices configurations in seconds of one slot.

    Args:
        train: Number of training images.
        validation: Number of validation images.
        classes: C.
        costs: What is known of the machines; default: nothing yet.
    """

    def __init__(
        self, *, train: int, validation: int, classes: int, costs: Costs | None = None
    ) -> None:
        self._train = train
        self._validation = validation
        self._classes = classes
        self.costs = costs or Costs()
        self._works: dict[tuple[str, FitOn], list[Work]] = {}

    @classmethod
    def of(cls, dataset: Dataset) -> TrialCosts:
        """For the images of a run."""
        return cls(
            train=len(dataset.train_index),
            validation=len(dataset.validation_index),
            classes=dataset.class_count,
        )

    def work(self, config: Config, fit: FitOn = "train") -> list[Work]:
        """The stages of a training.

        Args:
            config: The configuration.
            fit: Which images are trained on.
        """
        key = (config.model_dump_json(exclude={"search", "name", "storage"}), fit)
        if key not in self._works:
            both = fit == "train+validation"
            self._works[key] = training_work(
                config,
                train=self._train + (self._validation if both else 0),
                validation=0 if both else self._validation,
                classes=self._classes,
            )
        return self._works[key]

    def seconds(self, config: Config, *, fit: FitOn = "train", done: int = 0) -> float:
        """Seconds of a training on one slot.

        Args:
            config: The configuration.
            fit: Which images are trained on.
            done: Epochs that are trained already.
        """
        return self.costs.training(self.work(config, fit), done)

    def until(self, config: Config, epoch: int) -> float:
        """Seconds that a trial takes to come to an epoch."""
        return self.seconds(config) - self.seconds(config, done=epoch)

    def epochs_within(self, config: Config, seconds: float) -> int:
        """Epochs that a trial has come to after some seconds: at least 1, at most all."""
        return self.costs.until(self.work(config), seconds)

    def observe(self, config: Config, result: Mapping[str, Any], *, fit: FitOn = "train") -> None:
        """Takes in what a worker measured.

        Args:
            config: What it trained.
            result: Of a step or a job: ``measured`` has epochs and seconds by stage.
            fit: Which images it was trained on.
        """
        measured = result.get("measured")
        if not measured:
            return
        by_stage = json.loads(measured) if isinstance(measured, str) else measured
        machine = str(result.get("place_machine", ""))
        for work in self.work(config, fit):
            if work.stage in by_stage:
                epochs, seconds = by_stage[work.stage]
                self.costs.observe(Measured(work, int(epochs), float(seconds), machine))
