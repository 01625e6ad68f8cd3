"""Every pooling goes into an ONNX file, with a batch of any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.export.graph import Deployed
from tests.export.conftest import make_config, make_network

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"head": "plain", "backbone": "test_vit"},
        {"pooling": "bilinear", "pooling_channels": 8},
        {"pooling": "compact_bilinear", "pooling_channels": 16, "pooling_dim": 64},
        {"pooling": "native", "backbone": "test_convnext"},
        {"pooling": "native", "backbone": "mobilenetv3_small_050"},
        {"pooling": "native", "backbone": "test_vit"},
        {"pooling": "native", "backbone": "vit_pe_core_tiny_patch16_384"},
        {"pooling": "cls_mean", "backbone": "test_vit"},
        {"pooling": "mean_last_4", "backbone": "test_vit"},
        {"pooling": "gem", "gem_power": 5.0},
        {"pooling": "isqrt_cov", "pooling_channels": 8},
        {"recurrent": True, "backbone": "test_efficientnet"},
        {"recurrent": True, "pooling": "native", "backbone": "mobilenetv3_small_050"},
    ],
    ids=[
        *("transformer", "bilinear", "compact bilinear"),
        *("norm", "convolution", "class token", "attention"),
        *("class token and mean", "last class tokens", "generalised mean", "covariance"),
        *("recurrent attention", "recurrent attention before the head"),
    ],
)
def test_every_pooling_goes_into_an_onnx_file(tmp_path, model):
    from gsfl_tune.export.onnx_file import write_onnx

    network = make_network(make_config(**model))
    preprocessing = Preprocessing(32, 37, "crop", [0.5] * 3, [0.3] * 3)
    module = Deployed(network, preprocessing, inside=True)
    write_onnx(module, tmp_path / "model.onnx")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 37, 37, 3), generator=generator, dtype=torch.uint8)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    found = session.run(None, {"images": images.numpy()})[0]
    with torch.inference_mode():
        expected = module(images).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
