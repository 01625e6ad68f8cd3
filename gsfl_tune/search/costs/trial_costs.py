"""Costs of a run's trainings on its slots: estimated at first, then corrected by measurements."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from gsfl_tune.cores import usable_cores
from gsfl_tune.data import Dataset
from gsfl_tune.data.folds import Fold, fold_of
from gsfl_tune.experiment.config import Config
from gsfl_tune.models import pooling_class, probe
from gsfl_tune.models.arithmetic import backbone_work
from gsfl_tune.search.costs.time_plan import EVIDENCE_SEEDS
from gsfl_tune.training.fingerprint import FitOn
from gsfl_tune.training.fit_precision import FLOPS_A_CORE
from gsfl_tune.training.precision import answers_again, features_again
from gsfl_tune.training.pricing import ASSUMED, Costs, Measured, Work, training_work
from gsfl_tune.training.timeline import STAGES

# Seconds of evidence and export, measured on two cores: fixed part (map, swap test, pictures and
# bundle); per image; per number of the probe's regressions (images times dimensions times classes).
# The rest is the network's, see `TrialCosts.evidence_seed`. Nine searches that other work slowed
# down more or less (benchmarks/results/budgeted.jsonl) took 12 to 35 seconds for the fixed part.
# With this number the time left was right most often in six searches that had the machine to
# themselves (benchmarks/results/estimates.md).
_EVIDENCE_START = 20.0
_EVIDENCE_IMAGE = 0.002
_PROBE_NUMBER = 3e-8
# Most test and training images that the evidence runs through a trained network.
_EVIDENCE_IMAGES = (2000, 2048)
# A pass without a step backward does more operations a second than a training: its time by the
# training's speed is multiplied by this. It fits the two searches with three seeds in
# benchmarks/results/budgeted.jsonl, whose evidence is mostly such passes.
_FORWARD_ALONE = 0.77
# Start of a process before one was measured, and how many measurements are kept.
_START_SECONDS = 6.0
_STARTS = 12
# Configurations whose work is remembered: a sampler that knows prices asks for many of each trial.
_REMEMBERED = 1000


class TrialCosts:
    """Prices configurations in seconds of one slot.

    Args:
        train: Number of training images.
        validation: Number of validation images.
        classes: Number C of classes.
        test: Number of test images.
        joined: Number of validation images that join a final retrain; default: all.
        costs: What is known of the machines; default: nothing yet.

    Attributes:
        node_slots: Slots of the machine that examines the winner; None: all of them.
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
        self.node_slots: int | None = None
        self._test = test
        self._joined = validation if joined is None else joined
        self._starts: list[float] = []
        self._works: dict[tuple[str, FitOn], list[Work]] = {}

    @classmethod
    def of(cls, dataset: Dataset, folds: int | None = None) -> TrialCosts:
        """Makes the costs for the images of a run.

        Args:
            dataset: The images.
            folds: Number of folds of a trial's trainings.

        Raises:
            UserError: When the images cannot be divided into folds.
        """
        if folds is not None:
            dataset = fold_of(dataset, Fold(0, folds))
        return cls(
            train=len(dataset.train_index),
            validation=len(dataset.validation_index),
            classes=dataset.class_count,
            test=len(dataset.test),
            joined=len(dataset.final_index) - len(dataset.train_index),
        )

    def unmeasured(self) -> TrialCosts:
        """Returns the costs for the same images as they are before anything is measured."""
        return TrialCosts(
            train=self._train,
            validation=self._validation,
            classes=self._classes,
            test=self._test,
            joined=self._joined,
        )

    @property
    def retrain(self) -> float:
        """Returns the factor for a final retrain, which also uses validation images."""
        return (self._train + self._joined) / max(1, self._train)

    @property
    def start(self) -> float:
        """Returns the expected seconds from a process start to its first report."""
        return statistics.median(self._starts) if self._starts else _START_SECONDS

    def note_start(self, seconds: float) -> None:
        """Registers how long one start took."""
        self._starts = [*self._starts, seconds][-_STARTS:]

    def evidence(self, config: Config, *, seeds: int = 1, slots: int = 1) -> float:
        """Returns the seconds after the last retrain (probes, pictures, export), whole machine.

        Args:
            config: Configuration of the winner.
            seeds: Number of retrains of the winner, and of its control.
            slots: Number of parallel trainings; the evidence has its machine alone.
        """
        reads = pooling_class(config.model.pooling).reads
        channels = probe(config.model.extractor, reads).channels
        numbers = self._train * channels * self._classes
        fixed = _EVIDENCE_START + _EVIDENCE_IMAGE * self._test + _PROBE_NUMBER * numbers
        if config.data.augment.flip:  # test images of the first seed, mirrored
            mirrored = min(self._test, _EVIDENCE_IMAGES[0])
            fixed += _FORWARD_ALONE * mirrored * self._forward(config, slots)
        if features_again(config):
            fixed += self._features_again(config)
        return fixed + min(seeds, EVIDENCE_SEEDS) * self.evidence_seed(config, slots)

    def _features_again(self, config: Config) -> float:
        """Returns the seconds in which validation and test images pass the backbone in fp32.

        The speed is that of this machine's cores, also where a GPU is faster.
        """
        reads = pooling_class(config.model.pooling).reads
        work = backbone_work(config.model.extractor, 0, config.eval_image_size, reads).frozen
        return (self._validation + self._test) * work / (FLOPS_A_CORE * usable_cores())

    def evidence_seed(self, config: Config, slots: int = 1) -> float:
        """Returns the part of `evidence` per seed with a trained backbone: its features are new."""
        tested, trained = _EVIDENCE_IMAGES
        # The winner sees training and test images, its control only test images.
        images = 2 * min(self._test, tested) + min(self._train + self._validation, trained)
        return _FORWARD_ALONE * images * self._forward(config, slots)

    def answers(self, config: Config, fit: FitOn = "train") -> float:
        """Returns the seconds, on one slot, of the answers at the end of a retrain.

        They are in fp32, so images pass the whole network again where it computes in less. A pass
        in fp32 costs what it does in a training in bf16, which goes backward too.

        Args:
            config: The configuration.
            fit: Which images it was trained on: validation images are answered after a training on
                the training part, test images after one on both.
        """
        images = self._validation if fit == "train" else self._test
        return images * self._forward(config, 1) if answers_again(config) else 0.0

    def _forward(self, config: Config, slots: int) -> float:
        """Returns the seconds of an image through a trained network; 0 for a frozen backbone.

        Nothing of it is cached, however little of the backbone is trained: all of its operations
        count, at the speed of those of the training.
        """
        trains = {each.name for each in STAGES if each.trains_backbone}
        works = [work for work in self.work(config) if work.stage in trains]
        if not works or not works[-1].operations:
            return 0.0
        reads = pooling_class(config.model.pooling).reads
        whole = backbone_work(config.model.extractor, 0, config.eval_image_size, reads).frozen
        # It runs on one machine, whatever others there are.
        slots = min(slots, self.node_slots or slots)
        return whole * self.costs.epoch(works[-1]) / works[-1].operations / slots

    def work(self, config: Config, fit: FitOn = "train") -> list[Work]:
        """Returns the stages of a training.

        Args:
            config: The configuration.
            fit: Which images are trained on.
        """
        key = (config.model_dump_json(exclude={"search", "name", "storage"}), fit)
        if key not in self._works:
            if len(self._works) >= _REMEMBERED:
                self._works.clear()
            both = fit == "train+validation"
            self._works[key] = training_work(
                config,
                train=self._train + (self._joined if both else 0),
                validation=0 if both else self._validation,
                classes=self._classes,
            )
        return self._works[key]

    def seconds(
        self, config: Config, *, fit: FitOn = "train", done: int = 0, slowest: bool = False
    ) -> float:
        """Returns the seconds of a training on one slot.

        Args:
            config: The configuration.
            fit: Which images are trained on.
            done: Number of epochs that are already trained.
            slowest: Whether on the slowest machine that was measured, not on the average one.
        """
        return self.costs.training(self.work(config, fit), done, slowest=slowest)

    def until(self, config: Config, epoch: int) -> float:
        """Returns the seconds that a trial takes to reach an epoch."""
        return self.seconds(config) - self.seconds(config, done=epoch)

    def epochs_within(self, config: Config, seconds: float) -> int:
        """Returns the epochs that a trial reaches in some seconds: at least 1, at most all."""
        return self.costs.until(self.work(config), seconds)

    def assume(self, config: Config, seconds: float) -> None:
        """Takes over what an earlier driver has planned with, until something is measured here.

        What is known of a kind of work already stays.

        Args:
            config: A configuration.
            seconds: Duration of its training on one slot.
        """
        guess = self.unmeasured()
        fixed = guess.costs.training([])
        factor = max(0.0, seconds - fixed) / max(1e-9, guess.seconds(config) - fixed)
        for work in self.work(config):
            if not self.costs.known(work):
                epoch = factor * guess.costs.epoch(work)
                self.costs.observe(Measured(work, 1, epoch, ASSUMED))

    def recall(self, config: Config, by_stage: Mapping[str, Sequence[float]]) -> None:
        """Takes over what an earlier driver has measured, until something is measured here.

        Args:
            config: Configuration that was trained.
            by_stage: Epochs and seconds by stage.
        """
        for work in self.work(config):
            if work.stage in by_stage:
                epochs, seconds = by_stage[work.stage]
                self.costs.observe(Measured(work, int(epochs), float(seconds), ASSUMED))

    def observe(self, config: Config, result: Mapping[str, Any], *, fit: FitOn = "train") -> None:
        """Registers measurements of a worker.

        Args:
            config: Configuration that it trained.
            result: Result of a step or a job: ``measured`` has epochs and seconds by stage.
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
