"""Two views of every image, and what may be learned from without labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from gsfl_tune.data import prepare
from gsfl_tune.data.contrast import (
    ContrastAugment,
    JoinedImages,
    images_without_labels,
    local_augment,
)
from gsfl_tune.data.loader import epoch_batches
from gsfl_tune.data.transforms.blur import Blur, blurred
from gsfl_tune.data.transforms.grey import Grey
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.pretrain_config import PretrainAugmentConfig

FLAT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def data(**changes):
    return DataConfig(
        source="typefaces", image_size=32, typefaces={"train": 6, "test": 2, "size": 40}, **changes
    )


def photographs(folder, count, seed):
    folder.mkdir()
    random = np.random.default_rng(seed)
    for number in range(count):
        # Low frequencies: no copies of each other by any measure.
        small = random.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((60, 60), Image.Resampling.BICUBIC).save(
            folder / f"{number}.png"
        )


def test_grey_has_the_brightness_of_bt_601_in_all_channels():
    images = 255 * torch.rand(3, 4, 5, 3)
    drawn = torch.tensor([[0.1], [0.9], [0.2]])
    found = Grey(0.5).apply(images.clone(), drawn)
    assert torch.equal(found[1], images[1])
    for place in (0, 2):
        brightness = images[place].numpy() @ np.array([0.299, 0.587, 0.114])
        for channel in range(3):
            assert np.allclose(found[place, :, :, channel], brightness, atol=1e-3)


def test_a_blur_is_a_gaussian_with_mirrored_borders():
    images = 255 * torch.rand(2, 30, 25, 3)
    deviations = torch.tensor([0.7, 1.9])
    found = blurred(images, deviations, reach=6).numpy()
    for image, deviation, own in zip(images.numpy(), deviations.tolist(), found, strict=True):
        wanted = ndimage.gaussian_filter(
            image, (deviation, deviation, 0), mode="mirror", radius=(6, 6, 0)
        )
        assert np.allclose(own, wanted, atol=0.01)


def test_deviations_of_a_blur_grow_with_the_image():
    image = torch.zeros(1, 112, 112, 3)
    image[0, 56, 56] = 1.0
    # Drawn to the end of the range: 2 of 224 pixels, so 1 of 112.
    found = Blur(1.0).apply(image.clone(), torch.tensor([[0.0, 1.0]]))[0, :, :, 0].double()
    offsets = torch.arange(112) - 56.0
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    assert float((found.sum(0) * offsets**2).sum()) == pytest.approx(1.0, rel=0.05)


def test_views_differ_and_depend_on_seed_and_epoch_alone():
    images = images_without_labels(prepare(data()))
    augment = ContrastAugment(PretrainAugmentConfig(), 32, **FLAT)
    index = np.arange(len(images))

    def batches(epoch, threads):
        return list(
            epoch_batches(
                images, index, 16, seed=1, epoch=epoch, transform=augment, device="cpu",
                threads=threads, views=2,
            )
        )  # fmt: skip

    first, again, later = batches(0, 1), batches(0, 3), batches(1, 1)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.positions, other.positions)
        assert all(map(torch.equal, one.views, other.views))
    one, other = first[0].views
    assert one.shape == other.shape == (16, 3, 32, 32)
    assert (one - other).abs().mean((1, 2, 3)).min() > 0.001
    assert not torch.equal(first[0].views[0], later[0].views[0])


def test_grey_changes_no_blur():
    """Each has a random stream of its own."""
    images = images_without_labels(prepare(data()))
    found = []
    for grey in (0.0, 1.0):
        augment = ContrastAugment(PretrainAugmentConfig(grey=grey, blur=0.5, color=0.0), 32, **FLAT)
        batches = epoch_batches(
            images, np.arange(20), 20, seed=0, epoch=0, device="cpu", transform=augment, views=2
        )
        found.append(next(batches).views[0])
    weights = torch.tensor([0.299, 0.587, 0.114])[None, :, None, None]
    # Both are linear: the brightness of what was blurred in colour.
    assert torch.allclose((found[0] * weights).sum(1), found[1][:, 0], atol=1e-4)


def test_joined_images_are_those_of_their_parts():
    own = images_without_labels(prepare(data())).parts[0]
    both = JoinedImages([own, own])
    index = np.array([len(own), 3, len(own) + 3, 0])
    squares = both.squares(index)
    expected = own.squares(np.array([0, 3, 3, 0]))
    assert all(np.array_equal(one, other) for one, other in zip(squares, expected, strict=True))
    assert len(both) == 2 * len(own) == len(both.paths)
    assert np.array_equal(both.gather(index), np.stack(expected))


def test_nothing_of_validation_and_test_is_learned_from(tmp_path):
    """Not even where it is given once more without a label."""
    photographs(tmp_path / "others", 5, seed=0)
    source = tmp_path / "labelled"
    source.mkdir()
    for number, name in enumerate(("a", "b", "c")):
        photographs(source / name, 12, seed=number + 1)
    config = DataConfig(source="folder", path=str(source), image_size=32)
    dataset = prepare(config)
    held = [dataset.pool.paths[n] for n in dataset.validation_index] + dataset.test.paths
    for number, path in enumerate(held):
        copy = Image.open(path).resize((50, 50))
        copy.save(tmp_path / "others" / f"copy{number}.png")
    given = config.model_copy(update={"unlabelled": str(tmp_path / "others")})
    images = images_without_labels(prepare(given))
    assert set(images.paths[:-5]) == {dataset.pool.paths[n] for n in dataset.train_index}
    assert sorted(path.rpartition("/")[2] for path in images.paths[-5:]) == [
        f"{n}.png" for n in range(5)
    ]


def test_images_without_a_label_by_shots_are_learned_from():
    every = images_without_labels(prepare(data()))
    few = prepare(data(shots=1))
    assert len(few.train_index) < len(every)
    again = images_without_labels(few)
    assert again.digest == every.digest
    assert again.paths == every.paths


def test_small_views_show_the_same_images_and_change_no_large_one():
    images = images_without_labels(prepare(data()))
    config = PretrainAugmentConfig(local_crops=3, local_scale=0.05, scale=0.3, ratio=1.0)
    index = np.arange(len(images))

    def batches(kind, side, **views):
        augment = kind(config, side, **FLAT)
        options = {"seed": 1, "epoch": 0, "transform": augment, "device": "cpu", **views}
        return list(epoch_batches(images, index, 16, **options))

    large = batches(ContrastAugment, 32, views=2)
    small = batches(local_augment, 16, views=3, first_view=2)
    for one, other in zip(large, small, strict=True):
        assert torch.equal(one.positions, other.positions)
        assert len(other.views) == 3
        assert other.views[0].shape[2:] == (16, 16)
    assert not torch.equal(small[0].views[0], small[0].views[1])
    # Numbers of a view are its own, whoever asks for it.
    every = batches(ContrastAugment, 32, views=4)
    later = batches(ContrastAugment, 32, views=2, first_view=2)
    assert torch.equal(every[0].views[0], large[0].views[0])
    assert torch.equal(every[0].views[2], later[0].views[0])


def test_areas_of_small_views_are_between_both_bounds():
    config = PretrainAugmentConfig(local_scale=0.05, scale=0.3, ratio=1.0)
    augment = local_augment(config, 16, **FLAT)
    random = augment.draw(500, torch.Generator().manual_seed(0))
    left, top, right, bottom = augment._pixels(random, 1000).T
    areas = ((right - left) * (bottom - top)).numpy() / 1e6
    assert areas.min() == pytest.approx(0.05, abs=0.01)
    assert areas.max() == pytest.approx(0.3, abs=0.01)
    assert PretrainAugmentConfig().local_side(224) == 96
    assert PretrainAugmentConfig().local_side(20) == 16
    assert PretrainAugmentConfig(local_size=48).local_side(224) == 48
