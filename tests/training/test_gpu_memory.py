from __future__ import annotations

import pytest
import torch

from gsfl_tune.training.gpu_memory import (
    FIXED_BYTES,
    TOLERATED_BYTES,
    GpuMemory,
    left_behind,
    tensor_bytes,
)

GIB = 2**30


@pytest.mark.parametrize(
    ("allocated", "shared", "baseline", "left"),
    [
        (0, 0, 0, 0),
        (GIB, GIB, 0, 0),
        # Libraries keep something from the first trial on.
        (GIB + FIXED_BYTES, GIB, FIXED_BYTES, 0),
        (TOLERATED_BYTES, 0, 0, 0),
        (TOLERATED_BYTES + 1, 0, 0, TOLERATED_BYTES + 1),
        # Another backbone is no leftover.
        (3 * GIB, 3 * GIB, FIXED_BYTES, 0),
        # A first trial that leaves gigabytes does not make them right.
        (2 * GIB, 0, 2 * GIB, 2 * GIB - FIXED_BYTES),
        # What trials shared was larger when the baseline was taken.
        (GIB, GIB, -GIB, 0),
    ],
)
def test_decides_what_is_too_much(allocated: int, shared: int, baseline: int, left: int) -> None:
    assert left_behind(allocated, shared, baseline) == left


def test_accounts_for_every_tensor_once() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(10, 20, bias=False))
    features = torch.zeros(100, 8)
    shared = {"model": module, "features": [features, features[:50]], "names": ["a", "b"]}
    assert tensor_bytes(shared, "cpu") == 4 * (10 * 20 + 100 * 8)
    assert tensor_bytes(shared, "cuda") == 0


def test_without_a_gpu_nothing_is_left_behind() -> None:
    if torch.cuda.is_initialized():
        pytest.skip("there is a GPU")
    assert GpuMemory().left_behind({}) == 0


@pytest.mark.gpu
def test_sees_what_a_trial_leaves_on_the_gpu() -> None:
    shared = {"features": torch.zeros(GIB // 8, device="cuda")}
    memory = GpuMemory()
    assert memory.left_behind(shared) == 0
    leak = torch.zeros(GIB // 4, device="cuda")
    assert memory.left_behind(shared) > GIB // 2
    del leak
    assert memory.left_behind(shared) == 0
