from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision.transforms.v2 import functional as reference

from gsfl_tune.data import Augment, center_crop, square_side
from gsfl_tune.data.augment import crop_boxes
from gsfl_tune.experiment.data_config import AugmentConfig

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def noise(count, side, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)


def gradient(count, side):
    """Red grows to the right, green downwards, linearly; blue is constant."""
    ramp = torch.linspace(0, 255, side)
    image = torch.stack(
        [ramp.expand(side, side), ramp[:, None].expand(side, side), torch.full((side, side), 51.0)],
        dim=-1,
    )
    return image.round().to(torch.uint8).expand(count, side, side, 3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_center_crop_at_full_size_copies_the_centre():
    images = noise(2, square_side(40))
    out = center_crop(images, 40, MEAN, STD)
    assert out.dtype == torch.float32
    assert out.is_contiguous()
    expected = images[:, 3:43, 3:43].permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN)[:, None, None]
    torch.testing.assert_close(out, expected / torch.tensor(STD)[:, None, None])


def test_the_field_of_view_is_the_same_at_every_size():
    images = gradient(1, square_side(224))
    for size in (224, 160, 96, 64):
        out = center_crop(images, size, **PLAIN)
        assert out.shape == (1, 3, size, size)
        # Pixel centres: half a pixel in from the edge of the field.
        edge = 0.5 - (0.5 - 0.5 / size) / 1.15
        assert out[0, 0, 0, 0].item() == pytest.approx(edge, abs=0.01)
        assert out[0, 0, 0, -1].item() == pytest.approx(1 - edge, abs=0.01)


def test_shrinking_does_not_alias():
    board = torch.from_numpy(np.indices((256, 256)).sum(0) % 2 * 255).to(torch.uint8)
    images = board[None, :, :, None].expand(1, 256, 256, 3)
    for out in (
        center_crop(images, 64, **PLAIN),
        Augment(AugmentConfig(scale=0.9), 64, **PLAIN)(images, generator()),
    ):
        assert (out - 0.5).abs().max() < 0.1


@pytest.mark.parametrize("side", [58, 75])
def test_center_crop_is_what_features_were_cached_with(side):
    images = noise(3, side, seed=1)
    values = images.permute(0, 3, 1, 2).float().contiguous() / 255
    if side != square_side(50):
        values = functional.interpolate(
            values, size=(58, 58), mode="bicubic", align_corners=False, antialias=True
        ).clamp(0, 1)
    values = values[:, :, 4:54, 4:54]
    expected = (values - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert torch.equal(center_crop(images, 50, MEAN, STD), expected)


def test_center_crop_agrees_with_pillow():
    images = noise(1, 115, seed=3)
    resized = Image.fromarray(images[0].numpy()).resize((58, 58), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(resized)[4:54, 4:54]).permute(2, 0, 1) / 255
    out = center_crop(images, 50, **PLAIN)[0]
    assert (out - expected).abs().mean() < 0.01


def pixel_boxes(random, config, side):
    """Left, top, right and bottom of every image's crop."""
    left, top, width, height = (crop_boxes(random[:, :4], config.scale, config.ratio) * side).T
    boxes = torch.stack([left, top, left + width, top + height], dim=1).round().int()
    return boxes.tolist()


@pytest.mark.parametrize(("size", "side"), [(32, 37), (64, 74), (24, 100), (32, 21)])
@pytest.mark.parametrize("way", ["fill", "resample"])
def test_crops_are_those_of_torchvision(size, side, way):
    config = AugmentConfig(scale=0.2, ratio=2.0)
    augment = Augment(config, size, **PLAIN)
    images = noise(40, side)
    random = Augment.draw(40, generator(3))
    if way == "fill":
        out = augment.apply(images, random)
    else:  # what other devices do
        out = augment.resample(images, random).permute(0, 3, 1, 2)
    for index, (left, top, right, bottom) in enumerate(pixel_boxes(random, config, side)):
        image = images[index].permute(2, 0, 1) / 255
        expected = reference.resized_crop(
            image, top, left, bottom - top, right - left, [size, size], antialias=True
        )
        if random[index, 4] < 0.5:
            expected = reference.horizontal_flip(expected)
        # Bytes are rounded after each of the two directions.
        torch.testing.assert_close(out[index], expected, atol=1.6 / 255, rtol=0)


@pytest.mark.parametrize("config", [AugmentConfig(), AugmentConfig(color=0.4, flip=False)])
def test_other_devices_make_the_same_images(config):
    augment = Augment(config, 32, MEAN, STD)
    images = noise(20, 50)
    random = Augment.draw(20, generator(8))
    there = augment.resample(images, random).permute(0, 3, 1, 2)
    torch.testing.assert_close(
        augment.apply(images, random), there, atol=2.5 / 255 / min(STD), rtol=0
    )


def test_colours_change_as_in_torchvision():
    images = noise(10, 32)
    config = AugmentConfig(scale=1.0, ratio=1.0, color=0.5, flip=False)
    random = Augment.draw(10, generator(4))
    out = Augment(config, 32, **PLAIN).apply(images, random)
    for index, factors in enumerate((1 + 0.5 * (2 * random[:, 5:] - 1)).tolist()):
        expected = reference.adjust_brightness(images[index].permute(2, 0, 1) / 255, factors[0])
        expected = reference.adjust_contrast(expected, factors[1])
        expected = reference.adjust_saturation(expected, factors[2])
        torch.testing.assert_close(out[index], expected, atol=1e-3, rtol=0)


def test_a_crop_has_pixels_even_in_the_smallest_square():
    images = noise(200, 2)
    out = Augment(AugmentConfig(scale=0.01, ratio=4.0), 8, **PLAIN)(images, generator())
    assert out.isfinite().all()
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize("color", [0.0, 0.4])
def test_augmentation_follows_from_the_generator(color):
    augment = Augment(AugmentConfig(color=color), 32, MEAN, STD)
    images = noise(6, square_side(32))
    first = augment(images, generator(1))
    assert first.shape == (6, 3, 32, 32)
    assert first.dtype == torch.float32
    assert first.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(first, augment(images, generator(1)), rtol=0, atol=0)
    assert not torch.equal(first, augment(images, generator(2)))
    source = generator(1)
    augment(images, source)
    assert not torch.equal(first, augment(images, source))


def test_every_image_of_a_batch_is_changed_in_its_own_way():
    images = noise(1, 37).expand(8, 37, 37, 3)
    out = Augment(AugmentConfig(), 32, MEAN, STD)(images, generator())
    distances = (out[:, None] - out[None]).abs().flatten(2).mean(-1)
    assert (distances[~torch.eye(8, dtype=torch.bool)] > 0.05).all()


def test_what_an_image_becomes_does_not_depend_on_its_neighbours():
    images = noise(5, 37)
    augment = Augment(AugmentConfig(color=0.3), 32, MEAN, STD)
    random = Augment.draw(5, generator(4))
    together = augment.apply(images, random)
    others = torch.cat([images[:1], noise(4, 37, seed=9)])
    assert torch.equal(augment.apply(others, random)[0], together[0])
    assert torch.equal(augment.apply(images[3:4], random[3:4])[0], together[3])


def test_crops_show_a_part_of_the_image_mirrored_or_not():
    images = gradient(400, 115)
    augment = Augment(AugmentConfig(scale=0.35, ratio=1.33), 100, **PLAIN)
    out = augment(images, generator(5))
    red = out[:, 0, 50]
    rising = red[:, -1] > red[:, 0]
    assert 0.4 < rising.float().mean() < 0.6
    width = (red[:, -1] - red[:, 0]).abs()
    height = (out[:, 1, -1, 50] - out[:, 1, 0, 50]).abs()
    area = width * height
    assert area.min() > 0.33
    assert area.max() <= 1.0
    assert area.mean() == pytest.approx(0.675, abs=0.05)
    ratio = width / height
    assert ratio.max() < 1.36
    assert ratio.min() > 1 / 1.36
    # The inside of a crop is linear, as the image is, and blue stays what it was.
    middle = (red[:, 10:-10].diff(dim=1)).std(dim=1)
    assert middle.max() < 0.004
    torch.testing.assert_close(out[:, 2], torch.full_like(out[:, 2], 0.2))


def test_without_flip_nothing_is_mirrored():
    out = Augment(AugmentConfig(flip=False), 100, **PLAIN)(gradient(50, 115), generator())
    assert (out[:, 0, 50, -1] > out[:, 0, 50, 0]).all()


def test_switching_colour_on_keeps_the_crops():
    images = gradient(4, 37)
    plain = Augment(AugmentConfig(), 32, **PLAIN)(images, generator(2))
    tiny = Augment(AugmentConfig(color=1e-6), 32, **PLAIN)(images, generator(2))
    torch.testing.assert_close(plain, tiny, atol=1e-4, rtol=0)


def test_colour_jitter_stays_in_range_and_grows_with_its_strength():
    images = noise(64, 37)

    def change(strength):
        plain = Augment(AugmentConfig(), 32, **PLAIN)(images, generator(2))
        out = Augment(AugmentConfig(color=strength), 32, **PLAIN)(images, generator(2))
        assert out.min() >= 0
        assert out.max() <= 1
        return (out - plain).abs().mean()

    assert 0 < change(0.1) < change(0.4) < change(1.0)


@pytest.mark.parametrize(("scale", "ratio"), [(1.0, 1.0), (1.0, 2.0), (0.05, 4.0), (0.35, 1.33)])
def test_boxes_lie_inside_and_have_the_wanted_area(scale, ratio):
    left, top, width, height = crop_boxes(torch.rand((1000, 4)), scale, ratio).unbind(1)
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + width <= 1 + 1e-5).all()
    assert (top + height <= 1 + 1e-5).all()
    area = width * height
    assert (area >= scale - 1e-5).all()
    assert (width / height <= ratio + 1e-4).all()
    assert (height / width <= ratio + 1e-4).all()
