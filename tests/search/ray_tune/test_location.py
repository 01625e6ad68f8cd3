"""What a worker process says of the place where it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch

from gsfl_tune.search.ray_tune.location import machine, place


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    machine.cache_clear()
    yield
    machine.cache_clear()


def _assigned(monkeypatch: pytest.MonkeyPatch, *gpus: str) -> None:
    """Ray says that this process has these GPUs."""
    context = SimpleNamespace(
        get_node_id=lambda: "8a2f", get_accelerator_ids=lambda: {"GPU": list(gpus)}
    )
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)


def test_a_process_without_a_gpu_names_its_node_itself_and_its_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _assigned(monkeypatch)
    assert place() == {
        "place_node": "8a2f",
        "place_gpus": "",
        "place_worker": os.getpid(),
        "place_machine": machine(False),
    }


def test_the_gpus_of_a_process_are_named_in_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    _assigned(monkeypatch, "2", "3")
    found = place()
    assert found["place_gpus"] == "2,3"
    assert found["place_machine"] == machine(True)


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
