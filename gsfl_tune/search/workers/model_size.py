"""Measures of a trained network that do not depend on the machine: its size and its arithmetic."""

from __future__ import annotations

import torch

from gsfl_tune.models.arithmetic import flop_counter
from gsfl_tune.training.training import Training


def measure_size(training: Training) -> dict[str, float]:
    """Returns what the exported network would weigh and compute.

    Args:
        training: A training, at any epoch.

    Returns:
        ``size_mb``, megabytes (10^6 bytes) of the tensors that inference needs, as in the bundle of
        the run; ``macs``, multiplications with an addition for one image, of matrix products and
        convolutions.
    """
    network = training.trained_network()
    tensors = network.inference_state().values()
    counter = flop_counter()
    side = training.config.eval_image_size
    with torch.inference_mode(), counter:
        network.infer(torch.zeros(1, 3, side, side))
    return {
        "size_mb": sum(each.numel() * each.element_size() for each in tensors) / 1e6,
        "macs": counter.get_total_flops() / 2,
    }
