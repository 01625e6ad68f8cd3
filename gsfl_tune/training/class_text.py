"""Starts a classifier from the class descriptions of the data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.activity import activity
from gsfl_tune.cache.building import acquire
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import PlainHead
from gsfl_tune.models.class_text import ClassMoments, classifier_of_texts
from gsfl_tune.models.text_tower import TextTowerError, embed_texts
from gsfl_tune.training.caches.features import digest
from gsfl_tune.training.workspace import Workspace

_BATCH = 4096


def class_embeddings(config: Config, workspace: Workspace) -> np.ndarray:
    """Returns embeddings (C, E) of the class descriptions; texts are embedded once a node.

    Raises:
        UserError: If there are none, or texts cannot be embedded.
    """
    dataset, data = workspace.dataset, config.data
    if dataset.class_embeddings is not None:
        return dataset.class_embeddings
    texts = dataset.class_texts
    if texts is None or data.text_model is None or data.text_weights is None:
        raise UserError(
            "model.classifier_init: found class_text, but data.class_text gives no embeddings, nor "
            "texts with data.text_model and data.text_weights; allowed random"
        )
    name, weights = data.text_model, Path(data.text_weights)

    def build(path: Path) -> None:
        try:
            with activity(f"embedding {len(texts)} texts with {name}"):
                rows = embed_texts(texts, name, weights)
        except TextTowerError as error:
            raise UserError(str(error)) from error
        with path.open("wb") as file:
            np.save(file, rows)

    try:
        # Copies of other weights may have the same size and time.
        with weights.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"data.text_weights: {weights} cannot be read: {error}") from error
    key = digest("texts", texts, name, content)
    what = f"texts of {dataset.class_count} classes, {name}"
    with acquire(workspace.cache_dir / "texts" / f"{key}.npy", build, what=what) as path:
        found: np.ndarray = np.load(path, allow_pickle=False)
        return found


@torch.no_grad()
def start_from_texts(
    head: PlainHead, config: Config, workspace: Workspace, positions: np.ndarray
) -> None:
    """Sets weights and biases of a head's classifier; see `gsfl_tune.models.class_text`.

    Texts are mapped to the discriminative parts that the head, as it is, makes of the un-augmented
    training images. No random number is drawn.

    Args:
        head: A new head; its classifier is changed.
        config: The configuration.
        workspace: Data and caches of this node.
        positions: (N,) positions of the training images in the pool.

    Raises:
        UserError: If there are no embeddings.
    """
    embeddings = class_embeddings(config, workspace)
    labels = workspace.dataset.pool.labels
    features = workspace.features(config)
    weight = head.classifier.weight
    moments = ClassMoments.empty(head.class_count, head.latent_dim)
    training = head.training
    head.eval()
    for start in range(0, len(positions), _BATCH):
        rows = positions[start : start + _BATCH]
        unit = features[torch.from_numpy(rows)].to(weight.device, weight.dtype)
        moments.add(head(unit).discriminative.cpu().numpy(), labels[rows])
    head.train(training)
    rows, biases = classifier_of_texts(embeddings, moments, config.model.feature_scale)
    for tensor, values in ((weight, rows), (head.classifier.bias, biases)):
        _fill(tensor, values)


def _fill(tensor: Tensor, values: np.ndarray) -> None:
    tensor.copy_(torch.from_numpy(values).to(tensor))
