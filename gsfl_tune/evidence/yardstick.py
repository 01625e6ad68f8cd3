"""The linear probe of a run: trained and tested on the same images as its winner."""

from __future__ import annotations

import numpy as np

from gsfl_tune.evidence.bootstrap import paired_bootstrap
from gsfl_tune.evidence.linear_probe import linear_probe
from gsfl_tune.experiment.config import Config
from gsfl_tune.run.results import Probe, Score
from gsfl_tune.training import Workspace
from gsfl_tune.training.metrics import classification_metrics


def linear_probe_result(workspace: Workspace, config: Config, correct: np.ndarray) -> Probe:
    """Fits a linear probe on a configuration's frozen features and compares the winner with it.

    Args:
        workspace: Data and caches.
        config: Decides backbone, image size and pooling.
        correct: (seeds, test images) whether the winner was right.
    """
    dataset = workspace.dataset
    pool = workspace.features(config).float().numpy()
    train, validation = dataset.train_index, dataset.validation_index
    logits = linear_probe(
        pool[train],
        dataset.pool.labels[train],
        workspace.features(config, "test").float().numpy(),
        validation_features=pool[validation],
        validation_labels=dataset.pool.labels[validation],
        class_count=dataset.class_count,
    )
    labels = dataset.test.labels
    difference = paired_bootstrap(correct, logits.argmax(axis=1) == labels)
    return Probe(Score.table([classification_metrics(logits, labels)]), difference)
