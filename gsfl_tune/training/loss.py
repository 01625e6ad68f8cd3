"""The loss of a training, as its configuration says."""

from __future__ import annotations

import numpy as np
import torch

from gsfl_tune.data.sampling import class_weights
from gsfl_tune.experiment.config import Config
from gsfl_tune.losses import GsflLoss, create_terms


def create_loss(
    config: Config, labels: np.ndarray, class_count: int, device: torch.device
) -> GsflLoss:
    """Creates the loss.

    Args:
        config: Its section ``loss``, and the feature scale of the model.
        labels: (N,) labels of the training images, which class weights count.
        class_count: C.
        device: Where it is computed.
    """
    loss = config.loss
    weights = None
    if loss.class_weights:
        weights = torch.from_numpy(class_weights(labels, class_count, loss.class_weights))
    return GsflLoss(
        reconstruction=loss.reconstruction,
        class_center=loss.class_center,
        shared_center=loss.shared_center,
        label_smoothing=loss.label_smoothing,
        reconstruction_target=loss.reconstruction_target,
        feature_scale=config.model.feature_scale,
        further=create_terms(loss.terms.model_dump()),
        class_weights=None if weights is None else weights.to(device),
    )
