"""What a worker process says of the place where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray
import torch

from gsfl_tune.search.ray_tune.location import machine, place


def test_a_worker_names_its_node_itself_and_its_cpu(ray_of_tests: None) -> None:
    found = ray.get(ray.remote(place).options(num_cpus=1).remote())
    [node] = ray.nodes()
    assert found["place_node"] == node["NodeID"]
    assert found["place_gpus"] == ""
    assert found["place_worker"] != os.getpid()
    assert found["place_machine"] == machine(False)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux")
def test_a_cpu_has_the_name_that_the_kernel_gives_it() -> None:
    name = machine(False)
    assert name
    assert name == name.strip()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line for line in lines if line.startswith("model name")]
    assert not models or models[0].endswith(f": {name}")


def test_a_gpu_has_the_name_that_torch_gives_it_if_it_sees_one() -> None:
    expected = torch.cuda.get_device_name() if torch.cuda.is_available() else "GPU"
    assert machine(True) == expected
