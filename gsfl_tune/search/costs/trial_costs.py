"""What the trainings of a run cost on its slots, known before they begin and better afterwards."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from typing import Any

from gsfl_tune.data import Dataset
from gsfl_tune.experiment.config import Config
from gsfl_tune.models import probe
from gsfl_tune.search.costs.time_plan import EVIDENCE_SEEDS
from gsfl_tune.training.fingerprint import FitOn
from gsfl_tune.training.pricing import Costs, Measured, Work, training_work

# Evidence and export, as measured on two cores: map, swap test, pictures and bundle; an image
# more; a number of the probe's regressions (images times dimensions times classes).
_EVIDENCE_START = 35.0
_EVIDENCE_IMAGE = 0.002
_PROBE_NUMBER = 3e-8
# Test and training images that a trained network is asked about for it.
_EVIDENCE_IMAGES = (2000, 2048)
# A forward pass, of a step of training.
_FORWARD = 1 / 3
# Of a process, until one was seen; and how many of them are remembered.
_START_SECONDS = 6.0
_STARTS = 12


class TrialCosts:
    """Prices configurations in seconds of one slot.

    Args:
        train: Number of training images.
        validation: Number of validation images.
        classes: C.
        test: Number of test images.
        joined: Validation images that a final retrain trains on too; default: all.
        costs: What is known of the machines; default: nothing yet.
    """

    def __init__(
        self,
        *,
        train: int,
        validation: int,
        classes: int,
        test: int = 0,
        joined: int | None = None,
        costs: Costs | None = None,
    ) -> None:
        self._train = train
        self._validation = validation
        self._classes = classes
        self.costs = costs or Costs()
        self._test = test
        self._joined = validation if joined is None else joined
        self._starts: list[float] = []
        self._works: dict[tuple[str, FitOn], list[Work]] = {}

    @classmethod
    def of(cls, dataset: Dataset) -> TrialCosts:
        """For the images of a run."""
        return cls(
            train=len(dataset.train_index),
            validation=len(dataset.validation_index),
            classes=dataset.class_count,
            test=len(dataset.test),
            joined=len(dataset.final_index) - len(dataset.train_index),
        )

    @property
    def retrain(self) -> float:
        """Factor of a final retrain, which validation images join."""
        return (self._train + self._joined) / max(1, self._train)

    @property
    def start(self) -> float:
        """Seconds until a process that is started says its first words, by those of before."""
        return statistics.median(self._starts) if self._starts else _START_SECONDS

    def note_start(self, seconds: float) -> None:
        """Takes in how long one took."""
        self._starts = [*self._starts, seconds][-_STARTS:]

    def evidence(self, config: Config, *, seeds: int = 1, slots: int = 1) -> float:
        """Seconds after the last retrain, of the whole machine: probes, pictures, export.

        Args:
            config: Of the winner.
            seeds: Retrains of it, and of its control.
            slots: Trainings at once, of the machine that the evidence has alone.
        """
        numbers = self._train * probe(config.model.backbone).channels * self._classes
        fixed = _EVIDENCE_START + _EVIDENCE_IMAGE * self._test + _PROBE_NUMBER * numbers
        return fixed + min(seeds, EVIDENCE_SEEDS) * self.evidence_seed(config, slots)

    def evidence_seed(self, config: Config, slots: int = 1) -> float:
        """Of `evidence`, what every seed adds whose backbone was trained: its features are new."""
        steps = [work for work in self.work(config) if work.stage == "finetune" and work.epochs]
        if not steps:
            return 0.0
        forward = _FORWARD * self.costs.epoch(steps[0]) / max(1, self._train) / slots
        tested, trained = _EVIDENCE_IMAGES
        # The winner is asked about both parts, its control about the test images.
        images = 2 * min(self._test, tested) + min(self._train + self._validation, trained)
        return images * forward

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
                train=self._train + (self._joined if both else 0),
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
