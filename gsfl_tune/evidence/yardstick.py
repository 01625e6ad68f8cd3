"""The linear probe of a run, trained and tested on the same images as its winner."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gsfl_tune.evidence.interval import difference, mean_interval
from gsfl_tune.evidence.linear_probe import LinearProbe, tune_probe
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.metrics import RANKED
from gsfl_tune.models import LinearHead, Network
from gsfl_tune.run.results import Probe, Score
from gsfl_tune.training import Workspace
from gsfl_tune.training.metrics import classification_metrics
from gsfl_tune.training.predictions import right
from gsfl_tune.training.scoring import costs_of
from gsfl_tune.training.temperature import calibrate


@dataclass(frozen=True)
class Yardstick:
    """Holds a tuned linear probe and its one test.

    Attributes:
        probe: The classifier.
        logits: (N, C) of the test images.
        labels: (N,) their classes.
        validation: Validation metrics of a fit on the training images alone.
        validation_logits: (V, C) logits of that fit.
        validation_labels: (V,) classes.
        costs: (C, C) costs of answers that the search goes by, if it does.
    """

    probe: LinearProbe
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    validation: dict[str, float]
    validation_logits: NDArray[np.float32]
    validation_labels: NDArray[np.int64]
    costs: NDArray[np.float64] | None = None

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Returns whether it is right about each test image, (N,)."""
        return right(self.logits, self.labels)

    def result(self, winner_correct: ArrayLike) -> Probe:
        """Returns its entry in ``results.json``.

        Args:
            winner_correct: (seeds, N) whether the winner was right about the test images.
        """
        tested = classification_metrics(self.logits, self.labels, ranked=RANKED, costs=self.costs)
        return Probe(
            test=Score.table([tested]),
            difference=difference(winner_correct, self.correct),
            validation=Score.table([self.validation]),
            strength=self.probe.strength,
            interval=mean_interval(self.correct),
            calibration=calibrate(
                self.validation_logits[None], self.validation_labels, self.logits[None], self.labels
            ),
        )


def measure_probe(workspace: Workspace, config: Config) -> Yardstick:
    """Fits a tuned linear probe on a configuration's frozen features and tests it once.

    Args:
        workspace: Data and caches.
        config: Determines backbone, image size and pooling, and the costs of answers.
    """
    dataset = workspace.dataset
    pool = workspace.features(config).float().numpy()
    train, validation = dataset.train_index, dataset.validation_index
    labels = dataset.pool.labels
    # Its bundle answers in fp32, in whatever precision it was fitted.
    held, tested = (
        workspace.exact_features(config, part, index).float().numpy()
        for part, index in (("pool", validation), ("test", np.arange(len(dataset.test))))
    )
    tuned = tune_probe(
        pool[train],
        labels[train],
        held,
        labels[validation],
        class_count=dataset.class_count,
        refit=len(dataset.final_index) > len(train),
    )
    costs = costs_of(config.search, dataset.classes)
    return Yardstick(
        probe=tuned.probe,
        logits=tuned.probe.logits(tested),
        labels=np.asarray(dataset.test.labels, dtype=np.int64),
        validation=classification_metrics(
            tuned.validation_logits,
            labels[validation],
            ranked=RANKED,
            costs=costs,
            own_threshold=True,
        ),
        validation_logits=tuned.validation_logits,
        validation_labels=np.asarray(labels[validation], dtype=np.int64),
        costs=costs,
    )


def probe_network(workspace: Workspace, config: Config, probe: LinearProbe) -> Network:
    """Makes the network of a linear probe: the frozen backbone with the probe as its head.

    Args:
        workspace: Data and caches.
        config: Determines backbone, image size and pooling.
        probe: Fitted on features of this configuration.
    """
    extractor = workspace.extractor(config)
    head = LinearHead(probe.weights.shape[1], probe.weights.shape[0])
    with torch.no_grad():
        head.classifier.weight.copy_(torch.from_numpy(probe.weights))
        head.classifier.bias.copy_(torch.from_numpy(probe.bias))
    network = Network(
        workspace.new_backbone(config),
        copy.deepcopy(extractor.projection),
        extractor.pooling(),
        head,
    )
    return network.cpu().eval().requires_grad_(False)
