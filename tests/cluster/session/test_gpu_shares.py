"""Shares of GPUs, against how Ray packs them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gsfl_tune.cluster.session.gpu_shares import spread

TWO = {"CPU": 16.0, "GPU": 2.0}
FOUR = {"CPU": 16.0, "GPU": 4.0}
CPUS = {"CPU": 32.0}


@pytest.mark.parametrize(
    ("share", "nodes", "limit", "expected"),
    [
        (0.33, [TWO], 4, (0.5, 4)),
        (0.33, [TWO], 5, (0.3333, 5)),
        (0.33, [TWO], 1, (1.0, 1)),
        # 2 + 2 + 1 + 0 would leave a GPU idle.
        (0.33, [FOUR], 5, (1.0, 4)),
        (0.33, [FOUR], 9, (0.5, 8)),
        (0.33, [FOUR, CPUS], 99, (0.3333, 12)),
        # The cores of one node hold two trials a GPU, those of the other more: both get two.
        (0.25, [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 1.0}], 99, (0.5, 10)),
        (0.5, [{"CPU": 1.0, "GPU": 4.0}], 99, (1.0, 1)),
        (0.5, [CPUS], 99, (0.5, 0)),
    ],
)
def test_no_gpu_idles_while_another_is_shared(
    share: float, nodes: list[dict[str, float]], limit: int, expected: tuple[float, int]
) -> None:
    assert spread(1, share, nodes, limit) == expected


SCRIPT = """
import sys, ray
from collections import Counter
from gsfl_tune.cluster import ray_session, slots
from gsfl_tune.experiment.search_config import ResourcesConfig

class Trial:
    def gpu(self):
        return ray.get_runtime_context().get_accelerator_ids()["GPU"][0]

def placed(share, count):
    options = {"num_cpus": 1, "num_gpus": share}
    trials = [ray.remote(Trial).options(**options).remote() for _ in range(count)]
    found = Counter(ray.get([trial.gpu.remote() for trial in trials]))
    for trial in trials:
        ray.kill(trial)
    return sorted(found.values())

with ray_session(cpus=4, gpus=2):
    found = slots(ResourcesConfig(cpu=1, gpu=0.33), 4)
    print(placed(0.33, 4), placed(found.gpu, found.count))
"""


@pytest.mark.slow
def test_ray_puts_four_thirds_on_two_gpus_evenly() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    # What Ray does by itself is beside it, so that a Ray that spreads is noticed.
    assert done.stdout == "[1, 3] [2, 2]\n", done.stderr
