"""Every transform: a stream of its own, the same on all paths, and a geometry that is true."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.data import Augment
from gsfl_tune.data.transforms import (
    Degrade,
    RandAugment,
    RandomErasing,
    Streams,
    TrivialAugment,
)
from gsfl_tune.data.transforms.operations import NAMES
from gsfl_tune.data.transforms.trivial import _decoded
from gsfl_tune.experiment.data_config import AugmentConfig

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
FILL = [255 * value for value in MEAN]
PLAIN = {"scale": 1.0, "ratio": 1.0, "flip": False}
ON = {
    "nothing": {},
    "trivial": {"policy": "trivial"},
    "erasing": {"erasing": 0.7},
    "degrade": {"degrade": 0.7},
    "rand": {"policy": "rand", "rand_operations": 3},
    "both": {"policy": "trivial", "erasing": 0.7},
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=12, side=40, seed=0):
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    grown = np.repeat(np.repeat(small, side // 5, 1), side // 5, 2)
    return torch.from_numpy(grown)


def made(settings, size=32, **config):
    return Augment(AugmentConfig(**{**config, **settings}), size, MEAN, STD)


def rows(augment, count=12, seed=3):
    return augment.draw_rows(count, generator(seed), Streams(seed))


@pytest.mark.parametrize("settings", ON.values(), ids=ON)
def test_an_image_changes_alike_alone_in_a_batch_and_on_another_device(settings):
    augment, batch = made(settings, color=0.2), images()
    drawn = rows(augment)
    whole = augment.apply(batch, drawn)
    for place in (0, 5, 11):
        one = slice(place, place + 1)
        assert torch.equal(augment.apply(batch[one], drawn[one])[0], whole[place])
    # What other devices do, here on the CPU: up to the rounding of the resize.
    others = augment.resample(batch, drawn).permute(0, 3, 1, 2)
    levels = (others - whole).abs() * 255 * torch.tensor(STD).view(1, 3, 1, 1)
    # Operations that decide by thresholds (solarize, posterize, equalize, JPEG) amplify a level.
    assert float((levels < 4).float().mean()) > (0.94 if "degrade" in settings else 0.97)


def test_a_transform_that_is_switched_on_changes_no_other_stream():
    basic = rows(made(ON["nothing"]))
    trivial, erasing = rows(made(ON["trivial"])), rows(made(ON["erasing"]))
    both = rows(made(ON["both"]))
    assert all(torch.equal(each[:, :8], basic) for each in (trivial, erasing, both))
    assert torch.equal(both[:, 8:11], trivial[:, 8:])
    assert torch.equal(both[:, 11:], erasing[:, 8:])


def test_streams_go_on_and_depend_on_their_name_alone():
    alone = Streams(7, 1)
    first, second = (torch.rand(4, generator=alone("a")) for _ in range(2))
    assert not torch.equal(first, second)
    beside = Streams(7, 1)
    torch.rand(9, generator=beside("b"))
    assert torch.equal(torch.rand(4, generator=beside("a")), first)
    assert not torch.equal(torch.rand(4, generator=Streams(7, 2)("a")), first)


def test_erasing_erases_as_many_as_asked_and_areas_of_the_paper():
    erasing = RandomErasing(0.3, FILL)
    drawn = erasing.draw(generator(), 4000)
    changed = erasing.apply(torch.full((4000, 24, 24, 3), 7.0), drawn)
    gone = (changed != 7).any(3)
    shares = gone.flatten(1).float().mean(1)
    hit = shares > 0
    assert float(hit.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert float(shares[hit].min()) > 0.01
    assert float(shares[hit].max()) < 0.37
    assert float(shares[hit].mean()) == pytest.approx(0.175, abs=0.03)
    inside = changed[gone]
    assert torch.allclose(inside, torch.tensor(FILL).expand_as(inside))
    # On no side more often than on the other.
    where = gone[hit].float().mean(0)
    for one in (where, where.T):
        assert float(one[:12].mean()) == pytest.approx(float(one[12:].mean()), abs=0.02)
    row = gone[hit][0].any(1).nonzero()
    assert gone[hit][0].sum() == len(row) * gone[hit][0].any(0).sum()  # one rectangle


def every_operation(repeats=6):
    """Rows that draw every operation at several strengths and both signs."""
    wanted = []
    for which in range(len(NAMES)):
        for repeat in range(repeats):
            wanted.append([(which + 0.5) / len(NAMES), (repeat + 0.5) / repeats, repeat % 2])
    return torch.tensor(wanted, dtype=torch.float32)


def test_operations_are_drawn_evenly():
    drawn = TrivialAugment(FILL).draw(generator(), 7000)
    names = [_decoded(row)[0] for row in drawn.tolist()]
    counts = np.array([names.count(name) for name in NAMES])
    assert len(NAMES) == 14
    assert counts.min() > 400
    strengths = {_decoded(row)[1] for row in drawn.tolist()}
    assert len(strengths) == 31
    assert (min(strengths), max(strengths)) == (0, 1)


def test_colours_are_those_of_torchvision_and_the_rest_moves():
    from torchvision.transforms import TrivialAugmentWide
    from torchvision.transforms.v2 import functional as f

    theirs = TrivialAugmentWide()._augmentation_space(31)
    ours = {name.replace("_", "") for name in NAMES}
    assert ours == {name.lower() for name in theirs}
    trivial, batch = TrivialAugment(FILL), images(1, 40).float()
    for row in every_operation(4):
        name, strength, sign = _decoded(row.tolist())
        found = trivial.apply(batch.clone(), row[None])
        if name == "brightness":
            byte = batch[0].permute(2, 0, 1).to(torch.uint8)
            wanted = f.adjust_brightness(byte, 1 + sign * 0.99 * strength)
            assert torch.equal(found[0].permute(2, 0, 1), wanted.float())
        elif name == "identity":
            assert torch.equal(found, batch)
        else:
            assert found.shape == batch.shape
            assert float(found.min()) >= -0.01
            assert float(found.max()) <= 255.01


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_points_go_where_the_pixels_go(name):
    size = 61
    trivial = TrivialAugment(FILL)
    for strength in (0.05, 0.2):
        for sign in (0.0, 0.9):
            row = torch.tensor([[(NAMES.index(name) + 0.5) / len(NAMES), strength, sign]])
            picture = torch.zeros(1, size, size, 3)
            picture[0, 24:27, 34:37] = 255.0  # about x 35.5, y 25.5
            moved = trivial.apply(picture, row)[0, :, :, 0]
            bright = moved * (moved > 130)
            total = bright.sum()
            grid = torch.arange(size) + 0.5
            found = (float((bright.sum(0) * grid).sum() / total),
                     float((bright.sum(1) * grid).sum() / total))  # fmt: skip
            matrix = trivial.matrices(row, size)[0]
            wanted = matrix[:, :2] @ torch.tensor([35.5, 25.5]) + matrix[:, 2]
            assert found == pytest.approx(wanted.tolist(), abs=0.6)


def test_the_geometry_of_the_whole_change_is_true():
    augment = made({"policy": "trivial"}, size=64, scale=0.5, ratio=1.2, flip=True)
    drawn = rows(augment, 200)
    squares = torch.full((200, 80, 80, 3), 60, dtype=torch.uint8)
    squares[:, 38:42, 43:47] = 255
    out = augment.apply(squares, drawn)
    grey = (out * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)).mean(1)
    matrices = augment.matrices(drawn, 80)
    checked = 0
    for image, matrix, row in zip(grey, matrices, drawn[:, 8:].tolist(), strict=True):
        if _decoded(row)[0] not in ("identity", "rotate", "shear_x", "shear_y", "translate_x"):
            continue
        x, y = (matrix[:, :2] @ torch.tensor([45.0, 40.0]) + matrix[:, 2]).tolist()
        if not (6 < x < 58 and 6 < y < 58):
            continue
        bright = (image - 0.8).clamp(min=0)
        if bright.sum() < 1e-3:
            continue
        grid = torch.arange(64) + 0.5
        found = (float((bright.sum(0) * grid).sum() / bright.sum()),
                 float((bright.sum(1) * grid).sum() / bright.sum()))  # fmt: skip
        assert found == pytest.approx((x, y), abs=1.5)
        checked += 1
    assert checked > 30


def test_operations_of_randaugment_are_those_of_torchvision():
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional as f

    magnitude, batch = 17, images(1, 40).float()
    byte = batch[0].permute(2, 0, 1).to(torch.uint8)
    theirs = v2.RandAugment(1, magnitude)._AUGMENTATION_SPACE
    apply = v2.RandAugment()._apply_image_or_video_transform
    rand = RandAugment(1, magnitude, FILL)
    assert {name.lower() for name in theirs} == {name.replace("_", "") for name in NAMES}
    for name, (values, signed) in theirs.items():
        ours = next(each for each in NAMES if each.replace("_", "") == name.lower())
        for sign in (1, -1) if signed else (1,):
            row = torch.tensor([[(NAMES.index(ours) + 0.5) / 14, 0.2 if sign > 0 else 0.8]])
            found = rand.apply(batch.clone(), row)[0].permute(2, 0, 1)
            several = values(31, 40, 40)
            value = 0.0 if several is None else sign * float(several[magnitude])
            if ours.startswith(("shear", "translate", "rotate")):
                matrix = rand.matrices(row, 40)[0]
                if ours.startswith("translate"):
                    assert abs(matrix[0, 2] + matrix[1, 2]) == pytest.approx(abs(value), rel=1e-5)
                elif ours.startswith("shear"):
                    assert abs(matrix[0, 1] + matrix[1, 0]) == pytest.approx(abs(value), rel=1e-5)
                else:
                    angle = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
                    assert angle == pytest.approx(value, rel=1e-5)
                continue
            wanted = apply(
                byte,
                name,
                value,
                interpolation=f.InterpolationMode.BILINEAR,
                fill={torch.Tensor: 0},
            )
            assert torch.equal(found, wanted.float()), name


def test_operations_of_randaugment_follow_each_other_and_their_points():
    rand, one = RandAugment(3, 12, FILL), RandAugment(1, 12, FILL)
    drawn = rand.draw(generator(), 40)
    assert drawn.shape == (40, 6)
    batch = images(40, 60).float()
    wanted, matrices = batch.clone(), torch.eye(3).repeat(40, 1, 1)
    for step in range(3):
        own = drawn[:, 2 * step : 2 * step + 2]
        wanted = one.apply(wanted, own)
        further = torch.eye(3).repeat(40, 1, 1)
        further[:, :2] = one.matrices(own, 60)
        matrices = further @ matrices
    assert torch.equal(rand.apply(batch.clone(), drawn), wanted)
    torch.testing.assert_close(rand.matrices(drawn, 60), matrices[:, :2])


def test_degrading_loses_detail_in_as_many_images_as_asked():
    degrade = Degrade(0.4)
    drawn = degrade.draw(generator(), 400)
    fine = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (400, 32, 32, 3))).float()
    changed = degrade.apply(fine.clone(), drawn)
    apart = (changed != fine).flatten(1).any(1)
    assert float(apart.float().mean()) == pytest.approx(0.4, abs=0.07)

    def detail(values):
        return float((values[:, 1:] - values[:, :-1]).abs().mean())

    smallest = drawn[:, 1] > 0.8
    assert detail(changed[apart & smallest]) < 0.4 * detail(fine)
    # What is large stays where it is.
    coarse = torch.zeros(1, 32, 32, 3)
    coarse[:, 16:, 16:] = 200
    found = degrade.apply(coarse.clone(), torch.tensor([[0.0, 0.5, 0.9]]))
    assert float((found - coarse).abs().mean()) < 8
