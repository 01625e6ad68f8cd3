"""A batch by name: pieces of it, and annotations that follow the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gsfl_tune.data import Annotations, Augment, Batch, Targets, epoch_batches, prepare
from gsfl_tune.experiment.data_config import AugmentConfig, DataConfig

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def batch(count=7):
    """Images whose every part says which image it is."""
    numbers = torch.arange(count)
    values = numbers.float()
    targets = Targets(
        numbers,
        soft=values[:, None].expand(count, 3),
        weights=values,
        others=numbers + 50,
        kept=0.7,
    )
    known = Annotations.of([(float(n), 0.0, n + 1.0, 1.0) for n in range(count)])
    views = values[:, None], values[:, None] + 100
    return Batch(views, targets, numbers, (known, known))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_pieces_of_a_batch_keep_everything_of_their_images(count):
    whole = batch()
    pieces = list(whole.chunk(count))
    assert sum(map(len, pieces)) == len(whole)
    assert torch.equal(torch.cat([piece.labels for piece in pieces]), whole.labels)
    for piece in pieces:
        numbers = piece.labels.float()
        assert torch.equal(piece.positions, piece.labels)
        assert torch.equal(piece.views[0][:, 0], numbers)
        assert torch.equal(piece.views[1][:, 0], numbers + 100)
        assert torch.equal(piece.targets.soft[:, 0], numbers)
        assert torch.equal(piece.targets.weights, numbers)
        assert torch.equal(piece.targets.others, piece.labels + 50)
        assert piece.targets.kept == 0.7
        for known in piece.annotations:
            np.testing.assert_array_equal(known.boxes[:, 0], numbers.numpy())


def test_the_only_view_is_refused_where_there_are_two():
    with pytest.raises(ValueError, match="2 views, not one"):
        _ = batch().inputs
    one = batch().seen_as(torch.ones(7, 1))
    assert torch.equal(one.inputs, torch.ones(7, 1))


def test_weights_multiply():
    targets = Targets(torch.arange(3)).weighted(torch.tensor([1.0, 2.0, 0.5]))
    again = targets.weighted(torch.tensor([2.0, 2.0, 2.0]))
    assert again.weights.tolist() == [2.0, 4.0, 1.0]


def test_points_and_boxes_are_where_their_pixels_are(tmp_path):
    """Images with one bright spot each: it is where the batch says, in every view."""
    generator = np.random.default_rng(0)
    places = {}
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(20):
            x, y = generator.integers(20, 44, 2)
            pixels = np.zeros((64, 64, 3), np.uint8)
            pixels[y - 3 : y + 3, x - 3 : x + 3] = 255
            path = tmp_path / "images" / name / f"{number}.png"
            Image.fromarray(pixels).save(path)
            places[str(path)] = (x, y)
    config = DataConfig(source="folder", path=str(tmp_path / "images"), image_size=56)
    data = prepare(config, side=64, cache_dir=tmp_path / "cache")
    spots = np.array([places[path] for path in data.pool.paths], np.float32)
    annotations = Annotations.of(
        [(x - 3, y - 3, x + 3, y + 3) for x, y in spots],
        points=spots[:, None],
        part_names=["spot"],
    )
    changes = AugmentConfig(scale=0.7, flip=True)
    batches = epoch_batches(
        data.pool,
        data.train_index,
        8,
        seed=1,
        epoch=0,
        transform=Augment(changes, 56, MEAN, STD),
        device="cpu",
        views=2,
        annotations=annotations,
    )
    seen = 0
    for batch in batches:
        for view, known in zip(batch.views, batch.annotations, strict=True):
            for image, box, (point,) in zip(view, known.boxes, known.points, strict=True):
                if box.min() < 1 or box.max() > 55:
                    continue
                weights = (image[0] - image.min()).numpy()
                rows, columns = np.arange(56) + 0.5, np.arange(56) + 0.5
                x = (weights.sum(0) * columns).sum() / weights.sum()
                y = (weights.sum(1) * rows).sum() / weights.sum()
                assert (x, y) == pytest.approx(point, abs=0.6)
                assert (box[:2] + box[2:]) / 2 == pytest.approx(point, abs=1e-3)
                bright = np.argwhere(weights > 0.5 * weights.max())
                assert bright.min(0)[::-1] == pytest.approx(box[:2], abs=1)
                assert bright.max(0)[::-1] + 1 == pytest.approx(box[2:], abs=1)
                seen += 1
    assert seen > 20
