import copy
import threading

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn
from torch.nn import functional

from gsfl_tune.models import create_backbone
from gsfl_tune.models.frozen import frozen_forward, gpu_has_bf16
from gsfl_tune.models.frozen_forward import TOLERANCE


def randomised(module, seed=0):
    """Norms as after training: with the statistics of a new module, folding them does nothing."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.running_mean, -0.5, 0.5),
                (norm.running_var, 0.5, 2.0),
                (norm.weight, 0.5, 1.5),
                (norm.bias, -0.3, 0.3),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return module.eval()


def images(count, *size, channels=3):
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(1))


def unit(maps):
    return functional.normalize(maps.mean((2, 3)), dim=1)


def distance(a, b):
    """The largest of an image, relative."""
    return float(((a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).max())


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("name", "norms_left"),
    [
        ("tf_efficientnet_lite0", 0),  # ReLU6, TensorFlow's padding
        ("test_efficientnet", 0),  # SiLU, squeeze and excitation
        ("test_resnet", 0),  # activations are modules of their own, behind sums too
        ("mobilenetv3_small_050", 0),  # Hardswish
        ("test_byobnet", None),
        ("test_nfnet", None),  # convolutions that change their weights
        ("test_convnext", None),
        ("test_vit", None),
    ],
)
def test_features_are_those_of_the_backbone(name, norms_left):
    backbone = randomised(create_backbone(name, "none"))
    frozen = frozen_forward(backbone, (3, 64, 64))
    batch = images(3, 64, 64)
    with torch.inference_mode():
        expected, found = backbone(batch), frozen(batch)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert distance(found, expected) <= TOLERANCE["fp32"]
    assert distance(unit(found), unit(expected)) <= 1e-5
    assert frozen.fused > 0
    if norms_left is not None:
        assert len(norms(frozen)) == norms_left


def test_features_of_trained_weights_at_any_size():
    backbone = create_backbone("tf_efficientnet_lite0", "package")
    frozen = frozen_forward(backbone, (3, 96, 96))
    # Odd and even sides are padded in different ways, and rows and columns each on their own.
    for size in ((96, 96), (97, 97), (97, 64), (66, 99)):
        batch = images(2, *size)
        with torch.inference_mode():
            assert distance(unit(frozen(batch)), unit(backbone(batch))) <= 1e-5


@pytest.mark.parametrize("side", range(5, 12))
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (3, 1, 2), (2, 3, 1)]
)
def test_padding_of_tensorflow(side, kernel, stride, dilation):
    model = nn.Sequential(
        Conv2dSame(8, 8, kernel, stride=stride, dilation=dilation, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(inplace=True),
    )
    randomised(model)
    batch = images(2, side, side + 1, channels=8)
    frozen = frozen_forward(model, (8, side, side + 1))
    with torch.inference_mode():
        torch.testing.assert_close(frozen(batch), model(batch))


def test_the_given_module_stays_as_it_is_and_the_copy_too():
    backbone = randomised(create_backbone("test_resnet", "none"))
    trainable = backbone.train_last(1)
    backbone.train()
    state = copy.deepcopy(backbone.state_dict())
    modes = [(type(m), m.training) for m in backbone.modules()]
    frozen = frozen_forward(backbone)
    with torch.no_grad():
        before = frozen(images(2, 64, 64))
    assert [(type(m), m.training) for m in backbone.modules()] == modes
    assert [p for p in backbone.parameters() if p.requires_grad] == trainable
    assert backbone.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())
    with torch.no_grad():
        for parameter in trainable:
            parameter.add_(1)
    # Evaluation mode and no gradient, whatever the caller does.
    after = frozen.train()(images(2, 64, 64).requires_grad_())
    assert torch.equal(before, after)
    assert not after.requires_grad


def test_what_something_else_uses_too_is_not_folded():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)
            self.norm, self.folded = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
            self.act = nn.ReLU()

        def forward(self, x):
            x = self.first(x)
            return self.act(self.folded(self.second(self.act(self.norm(x))))) + x

    model = randomised(Twice())
    frozen = frozen_forward(model, (3, 9, 9))
    assert len(norms(frozen)) == 1
    batch = images(2, 9, 9)
    with torch.no_grad():
        assert distance(frozen(batch), model(batch)) <= 1e-5


class ReadsItsNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)) * self.norm.weight.sum()


class DoubledWhereTheConvolutionIsPlain(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)) * (2 if type(self.conv) is nn.Conv2d else 1)


@pytest.mark.parametrize("kind", [ReadsItsNorm, DoubledWhereTheConvolutionIsPlain])
def test_a_module_that_cannot_be_changed_runs_as_it_is(kind):
    model = randomised(kind())
    frozen = frozen_forward(model, (3, 8, 8))
    assert frozen.fused == 0
    with torch.no_grad():
        torch.testing.assert_close(frozen(images(2, 8, 8)), model(images(2, 8, 8)))


def test_a_module_that_cannot_take_the_example_runs_as_it_is():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 2)).eval()
    frozen = frozen_forward(model, (3, 32, 32))
    assert frozen.fused == 0
    with torch.no_grad():
        torch.testing.assert_close(frozen(images(2, 8, 8)), model(images(2, 8, 8)))


def test_norms_are_folded_without_onednn(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    backbone = randomised(create_backbone("test_efficientnet", "none"))
    frozen = frozen_forward(backbone)
    assert not norms(frozen)
    batch = images(2, 64, 64)
    with torch.inference_mode():
        assert distance(frozen(batch), backbone(batch)) <= TOLERANCE["fp32"]


@pytest.mark.parametrize("count", [1, 9, 23])
def test_threads_keep_the_order_and_the_number_of_threads(count):
    backbone = randomised(create_backbone("test_efficientnet", "none"))
    frozen = frozen_forward(backbone)
    batch = images(count, 64, 64)
    torch.set_num_threads(3)
    with torch.inference_mode():
        found = frozen(batch)
    assert torch.get_num_threads() == 3
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [3]
    torch.set_num_threads(1)
    with torch.inference_mode():
        alone = torch.cat([backbone(image[None]) for image in batch])
    assert distance(found, alone) <= TOLERANCE["fp32"]


def test_the_precision_does_not_depend_on_the_threads():
    """Threads of a pool do not take over the autocast of a training that calls them."""
    backbone = create_backbone("test_vit", "none")
    frozen = frozen_forward(backbone)
    batch = images(9, 64, 64)
    found = []
    for threads in (3, 1):
        torch.set_num_threads(threads)
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            found.append(frozen(batch))
    with torch.inference_mode():
        expected = backbone(batch)
    for each in found:
        assert distance(each, expected) <= TOLERANCE["fp32"]


@pytest.mark.parametrize("emulated", [True, False])
def test_a_gpu_that_only_emulates_bf16_does_not_have_it(monkeypatch, emulated):
    def is_supported(including_emulation=True):
        return including_emulation or not emulated

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert gpu_has_bf16(torch.device("cuda")) == (not emulated)
    assert not gpu_has_bf16(torch.device("cpu"))


def test_no_images_give_an_empty_map():
    backbone = create_backbone("test_resnet", "none")
    frozen = frozen_forward(backbone)
    with torch.inference_mode():
        assert frozen(images(0, 64, 64)).shape == backbone(images(0, 64, 64)).shape


def test_bf16_is_near_and_gives_float32():
    backbone = randomised(create_backbone("test_resnet", "none"))
    frozen = frozen_forward(backbone, precision="bf16")
    batch = images(2, 64, 64)
    with torch.inference_mode():
        expected, found = backbone(batch), frozen(batch)
    assert found.dtype == torch.float32
    assert 1e-4 < distance(found, expected) <= TOLERANCE["bf16"]


def test_a_copy_can_be_copied_and_moved_after_use():
    backbone = randomised(create_backbone("test_efficientnet", "none"))
    frozen = frozen_forward(backbone)
    batch = images(2, 64, 64)
    with torch.inference_mode():
        expected = frozen(batch)
        assert torch.equal(copy.deepcopy(frozen)(batch), expected)
        assert torch.equal(frozen.cpu()(batch), expected)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_features():
    backbone = randomised(create_backbone("tf_efficientnet_lite0", "none")).cuda()
    frozen = frozen_forward(backbone)
    batch = images(2, 64, 64).cuda()
    with torch.inference_mode():
        found, expected = frozen(batch), backbone(batch)
    assert found.is_cuda
    # Convolutions round to TF32 there.
    assert distance(unit(found), unit(expected)) <= 1e-2
