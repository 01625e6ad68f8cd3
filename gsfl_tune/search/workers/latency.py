"""The latency of a trained network for one image: the second objective of a search."""

from __future__ import annotations

import time
from typing import Any

import torch

from gsfl_tune.training.timing import measure_time
from gsfl_tune.training.training import Training

_WARM_UP = 5
_FEWEST, _MOST, _SECONDS = 30, 300, 2.0


def measure_latency(training: Training) -> dict[str, Any]:
    """Times inference, one image at a time, on the device and with the threads of a trial.

    Args:
        training: A finished training.

    Returns:
        ``latency_ms``, the median of ``runs`` runs, with ``threads`` and ``device``. ``reliable``
        tells whether it can be trusted, from the ``spread`` and the cores that ``others`` used,
        see `gsfl_tune.training.timing.Timing`.
    """
    device = training.device
    network = training.trained_network().to(device)
    size = training.config.eval_image_size
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((1, 3, size, size), generator=generator).to(device)

    def run() -> float:
        started = time.perf_counter()
        network.infer(image)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return 1000 * (time.perf_counter() - started)

    # A GPU needs only one CPU thread, which feeds it.
    threads = 1 if device.type != "cpu" else torch.get_num_threads()
    with torch.inference_mode():
        for _ in range(_WARM_UP):
            run()
        timing = measure_time(run, fewest=_FEWEST, most=_MOST, seconds=_SECONDS, threads=threads)
    return {
        "latency_ms": timing.median,
        "runs": timing.runs,
        "threads": torch.get_num_threads(),
        "device": str(device),
        **timing.to_json(),
    }
