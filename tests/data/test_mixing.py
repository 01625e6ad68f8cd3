"""Mixup and CutMix: what becomes of images and labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gsfl_tune.data import Annotations, Batch, Targets
from gsfl_tune.data.mixing import Mixing
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.errors import UserError


def of(*views):
    """A batch whose labels differ."""
    labels = torch.arange(len(views[0]))
    return Batch(views, Targets(labels), labels)


def mean(targets, own, others):
    return targets.kept * own + (1 - targets.kept) * others


def bright(count=6, side=20):
    """Images that are as bright as their label says."""
    labels = torch.arange(count)
    return of(labels.float()[:, None, None, None].expand(count, 3, side, side).clone())


def is_rectangle(mask):
    return mask.sum() == mask.any(1).sum() * mask.any(0).sum()


def test_without_either_nothing_is_drawn_and_nothing_copied():
    batch = bright()
    mixed = Mixing()(batch, Streams(0))
    assert mixed is batch
    assert mixed.targets.others is None
    assert mixed.targets.kept == 1


def test_mixup_is_the_weighted_mean_of_two_images_and_their_labels():
    batch = bright()
    streams = Streams(0)
    shares = []
    for _ in range(200):
        mixed = Mixing(mixup=0.4)(batch, streams)
        expected = (
            mixed.targets.kept * mixed.labels + (1 - mixed.targets.kept) * mixed.targets.others
        )
        assert torch.allclose(mixed.inputs[:, 0, 0, 0], expected, atol=1e-5)
        assert torch.equal(mixed.labels, batch.labels)
        assert sorted(mixed.targets.others.tolist()) == batch.labels.tolist()
        shares.append(mixed.targets.kept)
    assert min(shares) >= 0.5
    # The larger of Beta(0.4, 0.4) and its rest.
    draws = np.random.default_rng(0).beta(0.4, 0.4, 100_000)
    assert np.mean(shares) == pytest.approx(np.maximum(draws, 1 - draws).mean(), abs=0.04)


def test_cutmix_puts_one_rectangle_in_and_counts_its_pixels():
    batch = bright()
    streams = Streams(0)
    for _ in range(100):
        mixed = Mixing(cutmix=1.0)(batch, streams)
        for image, label, other in zip(
            mixed.inputs, mixed.labels, mixed.targets.others, strict=True
        ):
            kept = image[0] == label
            if label == other:
                continue
            assert float(kept.float().mean()) == pytest.approx(mixed.targets.kept, abs=1e-6)
            assert torch.all(kept | (image[0] == other))
            assert is_rectangle(~kept) or is_rectangle(kept)
        assert mixed.targets.kept >= 0.5
    assert torch.equal(batch.inputs, bright().inputs)


def test_rectangles_are_as_large_as_published_and_lie_everywhere():
    """The sides are sqrt(1 - share) of the image, with a share of Beta(1, 1)."""
    streams, wide = Streams(0), 40
    images = bright(6, wide)
    covered = torch.zeros(wide, wide)
    areas = []
    for _ in range(400):
        mixed = Mixing(cutmix=1.0)(images, streams)
        # The image around the rectangle is the one whose place it is.
        inside = (mixed.inputs[:, 0] != images.labels.float()[:, None, None]).any(0)
        covered += inside
        if inside.any():
            rows, columns = inside.any(1).sum(), inside.any(0).sum()
            assert abs(int(rows) - int(columns)) <= 1
        areas.append(float(inside.float().mean()))
    # Even between 0 and 1, and not folded at one half.
    assert np.mean(areas) == pytest.approx(0.5, abs=0.04)
    assert np.quantile(areas, [0.1, 0.25, 0.75, 0.9]) == pytest.approx(
        [0.1, 0.25, 0.75, 0.9], abs=0.06
    )
    # Every corner and edge is reached, and no side more than the other.
    assert covered.min() > 0
    assert covered.sum(0)[:5].sum() == pytest.approx(float(covered.sum(0)[-5:].sum()), rel=0.4)
    assert covered.sum(1)[:5].sum() == pytest.approx(float(covered.sum(1)[-5:].sum()), rel=0.4)


def test_an_image_under_a_large_rectangle_is_the_other_one():
    """Whatever belongs to an image goes with it: class, position, annotations, further values."""
    images = bright()
    known = Annotations.of(np.arange(24.0).reshape(6, 4).tolist())
    extras = {"number": torch.arange(6)}
    targets = replace(images.targets, extras=extras)
    batch = replace(images, targets=targets, annotations=(known,))
    streams, large = Streams(0), 0
    for _ in range(60):
        mixed = Mixing(cutmix=1.0)(batch, streams)
        assert torch.equal(mixed.positions, mixed.labels)
        assert torch.equal(mixed.targets.extras["number"], mixed.labels)
        assert torch.equal(mixed.targets.extras_of_others["number"], mixed.targets.others)
        assert np.array_equal(mixed.annotations[0].boxes[:, 0], 4 * mixed.labels.numpy())
        large += not torch.equal(mixed.labels, images.labels)
    assert 15 < large < 45


def test_both_take_turns_at_random():
    batch = bright()
    streams, cuts = Streams(0), 0
    for _ in range(200):
        mixed = Mixing(mixup=1.0, cutmix=1.0)(batch, streams)
        values = torch.cat([mixed.labels, mixed.targets.others]).float()
        cuts += bool(torch.isin(mixed.inputs[:, 0].flatten(), values).all())
    assert 70 < cuts < 130


def test_the_same_epoch_is_mixed_alike_and_another_one_is_not():
    batch = bright()
    first = [Mixing(mixup=1.0)(batch, Streams(4)) for _ in range(2)]
    other = Mixing(mixup=1.0)(batch, Streams(5))
    assert first[0].targets.kept == first[1].targets.kept
    assert torch.equal(first[0].inputs, first[1].inputs)
    assert first[0].targets.kept != other.targets.kept


def test_features_are_mixed_too_and_tokens_are_not_cut():
    f = torch.randn(6, 9)
    mixed = Mixing(mixup=1.0)(of(f), Streams(0))
    assert torch.allclose(
        mixed.inputs,
        mixed.targets.kept * f + (1 - mixed.targets.kept) * f[mixed.targets.others],
        atol=1e-6,
    )
    with pytest.raises(UserError, match=r"training\.finetune\.cutmix: found activations without"):
        Mixing(cutmix=1.0)(of(torch.randn(6, 5, 9)), Streams(0))


def test_all_views_of_an_image_are_mixed_alike():
    one = bright()
    batch = one.seen_as(one.inputs, one.inputs + 100)
    for mixing in (Mixing(mixup=1.0), Mixing(cutmix=1.0)):
        first, second = mixing(batch, Streams(0)).views
        assert torch.allclose(first + 100, second, atol=1e-4)


def test_soft_targets_and_weights_are_mixed_as_images_are():
    one = bright()
    soft = torch.eye(6)
    weights = torch.arange(6.0)
    batch = Batch(one.views, Targets(one.labels, soft=soft, weights=weights), one.positions)
    targets = Mixing(mixup=1.0)(batch, Streams(0)).targets
    assert torch.allclose(targets.soft, mean(targets, soft, soft[targets.others]))
    assert torch.allclose(targets.weights, mean(targets, weights, weights[targets.others]))
