import pytest
import torch
from torch.autograd import gradcheck

from gsfl_tune.models import create_pooling, pooling_dim, projection_channels
from gsfl_tune.models.pooling import signed_sqrt


def tensor_sketch(maps, bins, signs, dim):
    """Algorithm 2 of Gao et al., position by position, with FFTs."""
    batch, channels, height, width = maps.shape
    total = torch.zeros(batch, dim, dtype=maps.dtype)
    for row in range(height):
        for column in range(width):
            product = torch.ones(batch, dim, dtype=torch.complex128)
            for hashes, sign in zip(bins, signs, strict=True):
                sketch = torch.zeros(batch, dim, dtype=maps.dtype)
                for channel in range(channels):
                    sketch[:, hashes[channel]] += sign[channel] * maps[:, channel, row, column]
                product = product * torch.fft.fft(sketch.to(torch.complex128))
            total += torch.fft.ifft(product).real.to(maps.dtype)
    return total / (height * width)


@pytest.mark.parametrize("dim", [16, 97, 512])
def test_compact_bilinear_equals_the_fft_form(dim):
    pooling = create_pooling("compact_bilinear", 24, dim=dim, seed=3)
    maps = torch.randn(2, 24, 4, 5)
    expected = tensor_sketch(maps, pooling.bins, pooling.signs, dim)
    assert (pooling.sketch(maps) - expected).abs().max() < 1e-5
    double = maps.double()
    expected = tensor_sketch(double, pooling.bins, pooling.signs, dim)
    assert torch.allclose(pooling(double), signed_sqrt(expected), atol=1e-10)


def test_compact_bilinear_approximates_the_bilinear_kernel():
    torch.manual_seed(0)
    a, b = torch.rand(2, 1, 16, 3, 3)
    pooling = create_pooling("compact_bilinear", 16, dim=65536)
    exact = (a[0].flatten(1).T @ b[0].flatten(1)).square().mean()
    assert float((pooling.sketch(a) * pooling.sketch(b)).sum() / exact) == pytest.approx(1, abs=0.1)


def test_hashes_are_saved_and_seeded():
    maps = torch.rand(1, 8, 2, 2)
    first, second = (create_pooling("compact_bilinear", 8, dim=64, seed=s) for s in (0, 1))
    assert torch.equal(create_pooling("compact_bilinear", 8, dim=64, seed=0)(maps), first(maps))
    assert not torch.equal(second(maps), first(maps))
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(maps), first(maps))


def test_bilinear_is_the_signed_root_of_the_mean_outer_product():
    maps = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    expected = torch.zeros(2, 3, 3, dtype=torch.float64)
    for row in range(4):
        for column in range(5):
            x = maps[:, :, row, column]
            expected += x[:, :, None] * x[:, None, :] / 20
    expected = (expected.sign() * expected.abs().sqrt()).flatten(1)
    assert torch.allclose(create_pooling("bilinear", 3)(maps), expected, atol=1e-3)


def test_signed_sqrt_has_a_bounded_slope_and_keeps_the_sign():
    x = torch.tensor([-4.0, -1e-12, 0.0, 1e-12, 4.0], requires_grad=True)
    y = signed_sqrt(x)
    assert torch.allclose(y, torch.tensor([-2.0, 0.0, 0.0, 0.0, 2.0]), atol=1e-3)
    assert torch.equal(y.sign(), x.sign())
    y.sum().backward()
    assert float(x.grad.max()) == pytest.approx(0.5e4, rel=1e-3)


@pytest.mark.parametrize("name", ["average", "bilinear", "compact_bilinear"])
def test_shapes_gradients_and_precision(name):
    pooling = create_pooling(name, 3, dim=16)
    maps = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    assert pooling(maps).shape == (2, pooling.dim)
    assert pooling.dim == pooling_dim(name, 3, dim=16)
    assert gradcheck(pooling, (maps,), eps=1e-7, atol=1e-3, rtol=1e-3)
    half = maps.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        pooled = pooling(half)
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, pooling(half.float()))


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="average, bilinear, compact_bilinear"):
        create_pooling("max", 3)


def test_projection_channels():
    assert projection_channels("average", None, 2048) is None
    assert projection_channels("average", 64, 2048) is None
    assert projection_channels("bilinear", None, 2048) == 128
    assert projection_channels("compact_bilinear", None, 2048) == 512
    assert projection_channels("compact_bilinear", None, 512) is None  # nothing to reduce
    assert projection_channels("bilinear", 64, 512) == 64
