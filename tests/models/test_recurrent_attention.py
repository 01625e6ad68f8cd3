"""Regions that a network proposes, against loops over pixels in float64."""

from __future__ import annotations

import math

import pytest
import torch

from gsfl_tune.models import (
    Recurrence,
    RecurrentAttention,
    create_backbone,
    joined,
    recurrence_size,
    zoom_work,
)
from gsfl_tune.models.recurrent_attention import AttentionProposal, zoomed

CHANNELS = 5


def plain_zoom(image, x, y, half, steepness):
    """The mask of the paper times the image, then bilinear interpolation, pixel by pixel."""
    _, height, width = image.shape

    def logistic(value):
        if value < -700:
            return 0.0
        return 1 / (1 + math.exp(-value))

    def boxcar(place, centre, reach):
        above = logistic(steepness * (place - centre + reach))
        return above - logistic(steepness * (place - centre - reach))

    masked = torch.empty_like(image)
    for row in range(height):
        for column in range(width):
            down = boxcar(row + 0.5, y * height, half * height)
            masked[:, row, column] = (
                image[:, row, column] * down * boxcar(column + 0.5, x * width, half * width)
            )

    def at(row, column):
        return masked[:, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]

    found = torch.empty_like(image)
    for row in range(height):
        for column in range(width):
            v = (y - half + 2 * half * (row + 0.5) / height) * height - 0.5
            u = (x - half + 2 * half * (column + 0.5) / width) * width - 0.5
            v, u = min(max(v, 0.0), height - 1.0), min(max(u, 0.0), width - 1.0)
            top, left = math.floor(v), math.floor(u)
            upper = (1 - u + left) * at(top, left) + (u - left) * at(top, left + 1)
            lower = (1 - u + left) * at(top + 1, left) + (u - left) * at(top + 1, left + 1)
            found[:, row, column] = (1 - v + top) * upper + (v - top) * lower
    return found


def images_of(count, height=12, width=16):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, height, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("steepness", [0.3, 2.0, 50.0])
def test_a_region_is_masked_and_enlarged_as_pixel_by_pixel(steepness):
    regions = torch.tensor(
        [[0.5, 0.5, 0.25], [0.3, 0.62, 0.21], [0.25, 0.75, 0.25], [0.5, 0.5, 0.5]],
        dtype=torch.float64,
    )
    images = images_of(4)
    found = zoomed(images, regions, steepness)
    for image, region, own in zip(images, regions.tolist(), found, strict=True):
        torch.testing.assert_close(own, plain_zoom(image, *region, steepness))


def test_the_whole_image_with_sharp_edges_is_the_image():
    whole = torch.tensor([[0.5, 0.5, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(zoomed(images_of(1), whole, 200.0), images_of(1))


def test_gradients_are_those_of_finite_differences():
    regions = torch.tensor([[0.41, 0.53, 0.27]], dtype=torch.float64, requires_grad=True)
    images = images_of(1, 6, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, r: zoomed(x, r, 1.0), (images, regions))


def test_layout_and_type_stay():
    images = images_of(2).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    found = zoomed(images, torch.full((2, 3), 0.4), 10.0)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)


def peaked(row, column, size=8):
    maps = torch.full((1, CHANNELS, size, size), 0.1)
    maps[:, :, row, column] = 5.0
    return maps


def test_an_untrained_region_is_half_of_the_side_where_the_map_answers_most():
    proposal = AttentionProposal(CHANNELS, Recurrence())
    for row, column in [(4, 3), (2, 5), (0, 0), (7, 1)]:
        x, y, half = proposal(peaked(row, column))[0].tolist()
        assert half == pytest.approx(0.25)
        # As near to it as fits into the image, with some room to move.
        for found, place in ((x, column), (y, row)):
            wanted = min(max((place + 0.5) / 8, 0.275), 0.725)
            assert found == pytest.approx(wanted, abs=1e-3)


def test_even_maps_and_the_other_start_are_in_the_middle():
    middle = torch.tensor([[0.5, 0.5, 0.25]])
    even = AttentionProposal(CHANNELS, Recurrence())(torch.full((1, CHANNELS, 3, 3), 0.7))
    torch.testing.assert_close(even, middle)
    torch.testing.assert_close(
        AttentionProposal(CHANNELS, Recurrence(start="middle"))(peaked(1, 1)), middle
    )


def test_trained_regions_stay_inside_the_image_and_are_at_least_a_third():
    torch.manual_seed(0)
    proposal = AttentionProposal(CHANNELS, Recurrence())
    for parameter in proposal.parameters():
        torch.nn.init.normal_(parameter, 0, 3)
    x, y, half = proposal(torch.randn(400, CHANNELS, 5, 6)).unbind(1)
    for centre in (x, y):
        assert (centre - half).min() >= -1e-6
        assert (centre + half).max() <= 1 + 1e-6
    assert half.min() >= 1 / 6 - 1e-6
    assert half.min() < 0.2
    assert half.max() > 0.4
    assert x.std() > 0.05


def test_regions_do_not_depend_on_the_units_of_the_map_or_its_size():
    torch.manual_seed(0)
    proposal = AttentionProposal(CHANNELS, Recurrence(start="middle"))
    torch.nn.init.normal_(proposal.last.weight)
    maps = torch.randn(3, CHANNELS, 4, 4)
    torch.testing.assert_close(proposal(1000 * maps), proposal(maps), atol=1e-4, rtol=1e-4)
    fine = maps.repeat_interleave(8, 2).repeat_interleave(8, 3)
    # The mean of a square over a position is not the square of its middle.
    torch.testing.assert_close(proposal(fine), proposal(maps), atol=0.02, rtol=0)


def pool(maps):
    return torch.nn.functional.normalize(maps.mean((2, 3)), dim=1)


def test_gradients_reach_the_proposals_through_the_next_scale_alone():
    torch.manual_seed(0)
    backbone = torch.nn.Conv2d(3, CHANNELS, 3, stride=2)
    module = RecurrentAttention(CHANNELS, Recurrence(3, 4, 1.0))
    images = torch.randn(2, 3, 24, 24)
    scales = module.scales(images, backbone, pool)
    assert len(scales) == 3
    directions = [torch.randn_like(each) for each in scales]
    reached = []
    for features, direction in zip(scales, directions, strict=True):
        module.zero_grad()
        (features * direction).sum().backward(retain_graph=True)
        reached.append(
            [
                bool(p.last.weight.grad.any())
                for p in module.proposals
                if p.last.weight.grad is not None
            ]
        )
    assert reached == [[], [True], [True, True]]
    maps = backbone(images).detach().requires_grad_()
    module.proposals[0](maps).sum().backward()
    assert maps.grad is None
    torch.testing.assert_close(module.features(images, backbone, pool), joined(scales))


def test_joint_features_are_the_sum_in_unit_length():
    torch.manual_seed(0)
    scales = [torch.nn.functional.normalize(torch.randn(3, 4), dim=1) for _ in range(3)]
    total = sum(scales)
    torch.testing.assert_close(joined(scales), total / total.norm(dim=1, keepdim=True))


def test_the_seed_of_a_training_does_not_change_it_nor_is_it_changed():
    torch.manual_seed(1)
    one, number = RecurrentAttention(CHANNELS, Recurrence()), torch.rand(())
    torch.manual_seed(1)
    assert torch.rand(()) == number
    other = RecurrentAttention(CHANNELS, Recurrence())
    first, second = (each.first.weight for each in other.proposals)
    assert torch.equal(first, one.proposals[0].first.weight)
    assert not torch.equal(first, second)


def test_its_size_and_work_are_counted():
    from torch.utils.flop_counter import FlopCounterMode

    module = RecurrentAttention(7, Recurrence(scales=4, width=9))
    assert recurrence_size(7, 4, 9) == sum(p.numel() for p in module.parameters())
    with FlopCounterMode(display=False) as counted:
        zoomed(torch.zeros(1, 3, 32, 32), torch.full((1, 3), 0.5), 10.0)
    assert zoom_work(32) == counted.get_total_flops()


def test_half_precision_weights_propose_the_same():
    torch.manual_seed(0)
    backbone = create_backbone("test_efficientnet", "none")
    module = RecurrentAttention(backbone.channels, Recurrence())
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    maps = backbone(torch.randn(4, 3, 64, 64))
    wanted = module.proposals[0](maps)
    found = module.half().proposals[0](maps.half())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, atol=5e-3, rtol=0)
