import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from gsfl_tune.models import (
    BackboneError,
    create_backbone,
    create_pooling,
    pooling_dim,
    projection_channels,
    reading_problem,
)
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


@pytest.mark.parametrize("power", [1.0, 3.0, 64.0])
def test_generalised_mean_is_that_of_a_loop(power):
    maps = 30 * torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    found = create_pooling("gem", 3, power=power)(maps)
    for image in range(2):
        for channel in range(3):
            values = [max(float(x), 1e-6) for x in maps[image, channel].flatten()]
            mean = sum(x**power for x in values) / len(values)
            assert float(found[image, channel]) == pytest.approx(mean ** (1 / power), rel=1e-9)
    single = create_pooling("gem", 3, power=power)(maps.float())
    assert torch.allclose(single, found.float(), rtol=1e-4)  # nothing leaves the range of float32


def newton_schulz(covariance):
    """Equations 3 to 5 of Li et al., with numbers of one image."""
    trace = np.trace(covariance)
    y, z = covariance / trace, np.eye(len(covariance))
    for _ in range(5):
        zy = z @ y
        y, z = 0.5 * y @ (3 * np.eye(len(y)) - zy), 0.5 * (3 * np.eye(len(y)) - zy) @ z
    return np.sqrt(trace) * y


def test_covariance_pooling_is_newton_schulz_of_the_covariance():
    mixing = torch.randn(6, 6, generator=torch.Generator().manual_seed(1)).double()
    maps = torch.randn(2, 6, 7, 8, generator=torch.Generator().manual_seed(0)).double()
    maps = torch.einsum("dc,bchw->bdhw", mixing, maps) + 5
    pooling = create_pooling("isqrt_cov", 6)
    found, single = pooling(maps), pooling(maps.float())
    assert found.shape == (2, 21)
    for image in range(2):
        covariance = np.cov(maps[image].flatten(1).numpy(), bias=True)
        expected = newton_schulz(covariance)[np.triu_indices(6)]
        np.testing.assert_allclose(found[image].numpy(), expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(single[image].numpy(), expected, rtol=1e-3, atol=1e-4)


def test_five_steps_come_near_the_square_root():
    """Of 16 channels with like variances, as behind a projection that spreads them."""
    maps = torch.randn(1, 16, 20, 20, generator=torch.Generator().manual_seed(0))
    covariance = torch.cov(maps[0].flatten(1), correction=0).double()
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.sqrt()) @ vectors.T
    found = create_pooling("isqrt_cov", 16)(maps)[0].double()
    expected = root[*torch.triu_indices(16, 16)]
    assert (found - expected).norm() <= 0.03 * expected.norm()


def test_an_image_without_contrast_has_a_covariance_of_nothing():
    maps = torch.full((1, 4, 3, 3), 2.0, requires_grad=True)
    pooled = create_pooling("isqrt_cov", 4)(maps)
    pooled.sum().backward()
    assert not pooled.any()
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize("name", ["test_vit", "deit_tiny_distilled_patch16_224"])
def test_class_token_and_mean(name):
    """DeiT's second class token is neither the token nor a position."""
    backbone = create_backbone(name, "none", reads="tokens")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = backbone.model.forward_features(images)
        one, both = (
            create_pooling(each, backbone.channels)(backbone(images))
            for each in ("cls", "cls_mean")
        )
    assert torch.equal(one, tokens[:, 0])
    mean = tokens[:, backbone.model.num_prefix_tokens :].mean(dim=1)
    assert torch.allclose(both, torch.cat([tokens[:, 0], mean], dim=1), atol=1e-6)
    assert tokens.shape[1] == 16 + (2 if "distilled" in name else 1)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("test_vit", 4),
        ("test_vit", 2),
        ("deit_tiny_distilled_patch16_224", 4),
        ("eva02_tiny_patch14_224", 2),
    ],
)
def test_class_tokens_of_the_last_blocks_are_those_behind_the_norm(name, count):
    side = 224 if "eva" in name else 64
    backbone = create_backbone(name, "none", reads=f"last{count}")
    model = backbone.model
    with torch.no_grad():
        for parameter in model.parameters():  # norms that do something
            parameter.add_(0.02 * torch.randn(parameter.shape))
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, args, output: seen.append(output))
    pooling = create_pooling(f"mean_last_{count}", backbone.channels)
    with torch.no_grad():
        found = pooling(backbone(images))
        seen = [model.norm(each) for each in seen][-count:]
    mean = seen[-1][:, model.num_prefix_tokens :].mean(dim=1)
    expected = torch.cat([*(each[:, 0] for each in seen), mean], dim=1)
    assert found.shape == (2, (count + 1) * model.embed_dim) == (2, pooling.dim)
    assert pooling.dim == pooling_dim(f"mean_last_{count}", backbone.channels)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet10t", "'resnet10t' has no class token"),
        ("test_vit2", "'test_vit2' has no class token"),
        ("cait_xxs24_224", "timm gives no tokens of single blocks of 'cait_xxs24_224'"),
    ],
)
def test_models_without_tokens_of_their_blocks_are_refused(name, words):
    with pytest.raises(BackboneError, match=words):
        create_backbone(name, "none", reads="last4")
    assert reading_problem(name, "last4") == words


@pytest.mark.parametrize("name", ["resnet10t", "test_vit2", "swin_tiny_patch4_window7_224"])
def test_models_without_a_class_token_are_refused(name):
    with pytest.raises(BackboneError, match=f"{name!r} has no class token"):
        create_backbone(name, "none", reads="tokens")


@pytest.mark.parametrize("name", ["average", "bilinear", "compact_bilinear", "gem", "isqrt_cov"])
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
