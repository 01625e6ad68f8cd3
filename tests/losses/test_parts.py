"""The losses of a detector of parts against plain loops in float64."""

from __future__ import annotations

import math

import pytest
import torch

from gsfl_tune.losses.parts import part_errors, place_weights

NAN = math.nan
HEIGHT, WIDTH, IMAGES, PARTS = 4, 5, 3, 3
SEEN = torch.tensor([[1.0, 0.0, 1.0], [NAN, NAN, NAN], [1.0, NAN, 0.0]], dtype=torch.float64)


def drawn(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    low = 0.6 * numbers(IMAGES, PARTS, 2)
    boxes = torch.cat([low, low + 0.05 + 0.3 * numbers(IMAGES, PARTS, 2)], 2)
    low = numbers(IMAGES, PARTS, 2) - 0.2
    found = torch.cat([low, low + 0.1 + numbers(IMAGES, PARTS, 2)], 2)
    scores = 4 * numbers(IMAGES, PARTS, HEIGHT, WIDTH) - 2
    presence = 4 * numbers(IMAGES, PARTS) - 2
    return scores, found, presence, boxes


def plain_place(scores, x, y):
    """Minus the expected logarithm, over the four positions around a point."""
    total = math.log(sum(math.exp(value) for row in scores for value in row))
    u = min(max(x * WIDTH - 0.5, 0.0), WIDTH - 1.0)
    v = min(max(y * HEIGHT - 0.5, 0.0), HEIGHT - 1.0)
    left, top = min(math.floor(u), WIDTH - 2), min(math.floor(v), HEIGHT - 2)
    error = 0.0
    for row, share in ((top, top + 1 - v), (top + 1, v - top)):
        for column, other in ((left, left + 1 - u), (left + 1, u - left)):
            error -= share * other * (scores[row][column] - total)
    return error


def plain_overlap(a, b):
    def area(box):
        return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])

    common = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    around = area([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    union = area(a) + area(b) - common
    return 1 - (common / union - (around - union) / around)


def plain_presence(logit, there):
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if there else 1 - probability)


def test_errors_are_means_over_the_known_parts_of_each_image():
    scores, found, presence, boxes = drawn()
    wanted = [0.0, 0.0, 0.0]
    for image in range(IMAGES):
        rows = [[], [], []]
        for part in range(PARTS):
            seen = float(SEEN[image, part])
            if math.isnan(seen):
                continue
            rows[2].append(plain_presence(float(presence[image, part]), seen == 1))
            if seen != 1:
                continue
            left, top, right, bottom = boxes[image, part].tolist()
            at = (left + right) / 2, (top + bottom) / 2
            rows[0].append(plain_place(scores[image, part].tolist(), *at))
            rows[1].append(plain_overlap(found[image, part].tolist(), boxes[image, part].tolist()))
        for place, values in enumerate(rows):
            wanted[place] += sum(values) / max(1, len(values)) / IMAGES
    errors = part_errors(scores, found, presence, boxes, SEEN)
    assert [float(each) for each in errors] == pytest.approx(wanted, rel=1e-5)
    assert all(value > 0 for value in wanted)


def test_what_is_not_known_has_no_gradient_and_what_is_not_seen_that_of_presence():
    scores, found, presence, boxes = (each.requires_grad_() for each in drawn())
    sum(part_errors(scores, found, presence, boxes.detach(), SEEN)).backward()
    shown, known = SEEN == 1, torch.isfinite(SEEN)
    assert torch.equal(scores.grad.flatten(2).abs().sum(2) > 0, shown)
    assert torch.equal(found.grad.abs().sum(2) > 0, shown)
    assert torch.equal(presence.grad != 0, known)


def test_nothing_known_is_no_loss_but_keeps_the_graph():
    scores, found, presence, boxes = (each.requires_grad_() for each in drawn())
    unknown = torch.full_like(SEEN, NAN)
    errors = part_errors(scores, found, presence, torch.zeros_like(boxes), unknown)
    assert [float(each.detach()) for each in errors] == [0, 0, 0]
    sum(errors).backward()
    assert not scores.grad.any()
    assert not presence.grad.any()


def test_the_wanted_distribution_has_the_centre_as_its_mean():
    centres = torch.tensor([[0.31, 0.62], [0.1, 0.875], [0.5, 0.125]], dtype=torch.float64)
    weights = place_weights(centres, (HEIGHT, WIDTH))
    assert weights.sum(1).tolist() == pytest.approx([1, 1, 1])
    x = ((torch.arange(WIDTH) + 0.5) / WIDTH).repeat(HEIGHT).double()
    y = ((torch.arange(HEIGHT) + 0.5) / HEIGHT).repeat_interleave(WIDTH).double()
    torch.testing.assert_close(torch.stack([weights @ x, weights @ y], 1), centres)
    # Nearer to an edge than any position.
    edge = place_weights(torch.tensor([0.01, 0.99]), (HEIGHT, WIDTH)).unflatten(0, (HEIGHT, WIDTH))
    assert float(edge[-1, 0]) == 1
