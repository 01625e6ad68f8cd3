"""Boxes of parts, as views move them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.data import Annotations, Augment
from gsfl_tune.data.part_boxes import boxes_of, known_parts, part_names, with_corners
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.data_config import AugmentConfig

NAN = np.nan
NAMES = ["left eye", "tail", "Right Eye"]
SIDE = 100


def annotated(boxes=((20, 30, 70, 50), None)):
    points = np.array(
        [[[30, 40], [60, 45], [NAN, NAN]], [[50, 50], [10, 90], [52, 50]]], dtype=np.float32
    )
    return Annotations.of(list(boxes), points=points, part_names=NAMES)


def test_points_become_boxes_by_the_size_of_their_object():
    found = boxes_of(with_corners(annotated(), SIDE, 0.2, whole=True), SIDE)
    # Of the geometric mean of 50 and 20 pixels; without a box of the side.
    half = 0.1 * 1000**0.5
    around = [[x - half, y - half, x + half, y + half] for x, y in ((30, 40), (60, 45))]
    wanted = [
        [[20, 30, 70, 50], *around, [0] * 4],
        [[0] * 4, [40, 40, 60, 60], [0, 80, 20, 100], [42, 40, 62, 60]],
    ]
    np.testing.assert_allclose(found.boxes * SIDE, wanted, atol=1e-4)
    np.testing.assert_array_equal(found.seen, [[1, 1, 1, NAN], [NAN, 1, 1, 1]])
    assert part_names(annotated(), whole=True) == ["object", *NAMES]


def test_without_boxes_or_without_the_whole_there_are_points_alone():
    for boxes, whole in (((None, None), True), (((20, 30, 70, 50), None), False)):
        own = annotated(boxes)
        assert part_names(own, whole=whole) == NAMES
        assert boxes_of(with_corners(own, SIDE, 0.2, whole=whole), SIDE).boxes.shape == (2, 3, 4)
        assert known_parts(own, whole=whole)
    boxed = Annotations.of([(20, 30, 70, 50), None])
    assert part_names(boxed, whole=True) == ["object"]
    assert known_parts(boxed, whole=True)
    assert not known_parts(boxed, whole=False)
    assert not known_parts(Annotations.of([None, None]), whole=True)


def moved(matrix, size=0.2):
    corners = with_corners(annotated(), SIDE, size, whole=True)
    return boxes_of(corners.moved(np.broadcast_to(np.float32(matrix), (2, 2, 3))), SIDE)


def test_what_a_crop_leaves_out_is_not_there_and_boxes_end_at_its_edges():
    # A quarter, enlarged: 30, 40 is at 50, 70.
    found = moved([[2, 0, -10], [0, 2, -10]])
    np.testing.assert_array_equal(found.seen, [[1, 1, 0, NAN], [NAN, 1, 0, 1]])
    np.testing.assert_allclose(found.boxes[0, 0], [0.3, 0.5, 1, 0.9], atol=1e-6)
    np.testing.assert_allclose(found.boxes[1, 1], [0.7, 0.7, 1, 1], atol=1e-6)
    # A sliver of the object does not count.
    assert moved([[2, 0, -125], [0, 2, 0]]).seen[0, 0] == 0


def test_in_a_mirror_left_is_right():
    plain, found = moved([[1, 0, 0], [0, 1, 0]]), moved([[-1, 0, SIDE], [0, 1, 0]])
    mirrored = plain.boxes[..., [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
    for part, other in enumerate([0, 3, 2, 1]):
        np.testing.assert_array_equal(found.seen[:, part], plain.seen[:, other])
        known = found.seen[:, part] == 1
        np.testing.assert_allclose(found.boxes[known, part], mirrored[known, other], atol=1e-6)


def test_turned_boxes_are_held_by_the_smallest_box():
    half = 0.5**0.5
    turn = np.array([[half, -half], [half, half]])
    matrix = np.concatenate([turn, (50 - turn @ [50, 50])[:, None]], axis=1)
    found = moved(matrix)
    low, high = 0.5 - 0.1 * 2**0.5, 0.5 + 0.1 * 2**0.5
    np.testing.assert_allclose(found.boxes[1, 1], [low, low, high, high], atol=1e-5)


def test_a_box_without_an_area_is_not_known():
    found = boxes_of(with_corners(annotated([(20, 30, 20, 50), None]), SIDE, 0.2, whole=True), SIDE)
    assert np.isnan(found.seen[0]).all()


@pytest.mark.parametrize("policy", ["none", "trivial"])
def test_they_are_where_the_pixels_are(policy):
    """A bright square on each image, through crop, flip and turns."""
    side, size = 64, 48
    generator = torch.Generator().manual_seed(0)
    images = np.full((40, side, side, 3), 60, np.uint8)
    boxes = []
    for image in images:
        left, top = torch.randint(8, 40, (2,), generator=generator).tolist()
        image[top : top + 12, left : left + 12] = 255
        boxes.append((left, top, left + 12, top + 12))
    config = AugmentConfig(scale=0.4, policy=policy)
    # New area at the edges gets the mean colour: that of the background.
    augment = Augment(config, size, (60 / 255,) * 3, (0.5,) * 3)
    drawn = augment.draw_rows(len(images), generator, Streams(3))
    views = augment.apply(torch.from_numpy(images), drawn)
    corners = with_corners(Annotations.of(boxes), side, 0.2, whole=True)
    found = boxes_of(corners.moved(augment.matrices(drawn, side).numpy()), size)
    overlaps = []
    for view, box, seen in zip(views, found.boxes[:, 0] * size, found.seen[:, 0], strict=True):
        rows, columns = np.nonzero((view.mean(0) > view.mean(0).median() + 0.3).numpy())
        if seen != 1 or not len(rows):
            continue
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        low, high = np.maximum(edges[:2], box[:2]), np.minimum(edges[2:], box[2:])
        areas = (edges[2:] - edges[:2]).prod() + (box[2:] - box[:2]).prod()
        common = (high - low).clip(0).prod()
        overlaps.append(common / (areas - common))
    assert len(overlaps) > 15
    # Some operations leave nothing of the contrast, or turn it round.
    assert np.mean(np.array(overlaps) > 0.7) > (0.95 if policy == "none" else 0.8)
