"""How long a trained network takes for one image: the second objective of a search."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from gsfl_tune.training.trial import Training

_WARM_UP = 5
_FEWEST, _MOST, _SECONDS = 30, 300, 2.0


def measure_latency(training: Training) -> dict[str, Any]:
    """Times inference, one image at a time, on the device and with the threads of a trial.

    Args:
        training: A training at its end.

    Returns:
        ``latency_ms``, the median of ``runs`` runs, with ``threads`` and ``device``.
    """
    device = training.device
    network = training.trained_network().to(device)
    size = training.config.data.image_size
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((1, 3, size, size), generator=generator).to(device)

    def run() -> float:
        started = time.perf_counter()
        network.infer(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return 1000 * (time.perf_counter() - started)

    times: list[float] = []
    with torch.inference_mode():
        for _ in range(_WARM_UP):
            run()
        began = time.perf_counter()
        while len(times) < _FEWEST or (
            len(times) < _MOST and time.perf_counter() - began < _SECONDS
        ):
            times.append(run())
    return {
        "latency_ms": float(np.median(times)),
        "runs": len(times),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }
