"""Runtime for the PyTorch network itself."""

from __future__ import annotations

import torch
from torch import Tensor

from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.export.runtimes._base import Runtime
from gsfl_tune.models import Ensemble, Network


class TorchRuntime(Runtime):
    """Runs a `Network` or an `Ensemble`.

    Args:
        network: The network, in eval mode.
        preprocessing: The preprocessing of a square.
    """

    def __init__(self, network: Network | Ensemble, preprocessing: Preprocessing) -> None:
        super().__init__(preprocessing)
        # Convolutions are faster in this memory format on CPUs.
        self.network = network.to(memory_format=torch.channels_last)

    @property
    def device(self) -> torch.device:
        """Returns the device of the network."""
        return next(self.network.parameters()).device

    def run(self, images: Tensor) -> Tensor:
        """Computes the logits of normalised images."""
        return self.network.infer(images.contiguous(memory_format=torch.channels_last))
