"""Batches in small requests: each caller gets the outputs of its own inputs, in order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from gsfl_tune.models.openvino_model import openvino_model
from gsfl_tune.models.openvino_requests import EngineRefused, Requests

openvino = pytest.importorskip("openvino")


def module() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


def batch(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_every_number_of_images_is_answered_in_order():
    plain = module()
    requests = Requests(openvino_model(plain, batch(2)), "fp32", threads=2)
    for count in (1, 3, 4, 5, 8, 23):
        found = torch.from_numpy(requests(batch(count).numpy()))
        torch.testing.assert_close(found, plain(batch(count)), atol=1e-5, rtol=1e-5)


def test_threads_side_by_side_get_their_own_answers():
    plain = module()
    requests = Requests(openvino_model(plain, batch(2)), "fp32", threads=2)

    def ask(seed: int) -> float:
        images = batch(1 + seed % 11, seed)
        return float((torch.from_numpy(requests(images.numpy())) - plain(images)).abs().max())

    with ThreadPoolExecutor(6) as pool:
        assert max(pool.map(ask, range(200))) < 1e-5


def test_inputs_are_bytes_where_the_example_is():
    class Bytes(nn.Module):
        def forward(self, squares):
            return squares.float().mean(dim=(1, 2))

    model = openvino_model(Bytes().eval(), torch.zeros(2, 4, 4, 3, dtype=torch.uint8))
    squares = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    found = Requests(model, "fp32", threads=1)(squares)
    np.testing.assert_allclose(found, squares.mean(axis=(1, 2)), rtol=1e-5)


def test_what_cannot_be_compiled_is_refused_with_the_reason():
    ops = openvino.opset13
    images = ops.parameter([-1, 6], openvino.Type.f32)
    model = openvino.Model([ops.reshape(images, [4, 3], False)], [images])
    with pytest.raises(EngineRefused, match=r"\S"):
        Requests(model, "fp32", threads=1)(np.zeros((1, 6), dtype=np.float32))


def test_nothing_is_reported_to_the_makers_of_openvino(monkeypatch):
    telemetry = pytest.importorskip("openvino_telemetry")
    sent: list[object] = []
    for name in ("send_event", "start_session", "end_session"):
        monkeypatch.setattr(
            telemetry.Telemetry, name, lambda self, *words, **more: sent.append(words)
        )
    openvino_model(module(), batch(2))
    assert sent == []
    openvino.convert_model(module(), example_input=batch(2))
    assert sent != []
