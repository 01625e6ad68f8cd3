"""Mixup and CutMix: what becomes of images and labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.data.mixing import Mixing
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.errors import UserError


def batch(count=6, side=20):
    """Images that are as bright as their label says, of labels that differ."""
    labels = torch.arange(count)
    return labels.float()[:, None, None, None].expand(count, 3, side, side).clone(), labels


def test_without_either_nothing_is_drawn_and_nothing_copied():
    images, labels = batch()
    mixed = Mixing()(images, labels, Streams(0))
    assert mixed.inputs is images
    assert mixed.others is None
    assert mixed.share == 1


def test_mixup_is_the_weighted_mean_of_two_images_and_their_labels():
    images, labels = batch()
    streams = Streams(0)
    shares = []
    for _ in range(200):
        mixed = Mixing(mixup=0.4)(images, labels, streams)
        expected = mixed.share * mixed.labels + (1 - mixed.share) * mixed.others
        assert torch.allclose(mixed.inputs[:, 0, 0, 0], expected, atol=1e-5)
        assert torch.equal(mixed.labels, labels)
        assert sorted(mixed.others.tolist()) == labels.tolist()
        shares.append(mixed.share)
    assert min(shares) >= 0.5
    # The larger of Beta(0.4, 0.4) and its rest.
    draws = np.random.default_rng(0).beta(0.4, 0.4, 100_000)
    assert np.mean(shares) == pytest.approx(np.maximum(draws, 1 - draws).mean(), abs=0.04)


def test_cutmix_puts_one_rectangle_in_and_counts_its_pixels():
    images, labels = batch()
    streams = Streams(0)
    for _ in range(100):
        mixed = Mixing(cutmix=1.0)(images, labels, streams)
        for image, label, other in zip(mixed.inputs, mixed.labels, mixed.others, strict=True):
            kept = image[0] == label
            if label == other:
                continue
            assert float(kept.float().mean()) == pytest.approx(mixed.share, abs=1e-6)
            inside = ~kept
            rows, columns = inside.any(1), inside.any(0)
            assert inside.sum() == rows.sum() * columns.sum()
            assert torch.all(image[0][inside] == other)
    assert torch.equal(images, batch()[0])


def test_both_take_turns_at_random():
    images, labels = batch()
    streams, cuts = Streams(0), 0
    for _ in range(200):
        mixed = Mixing(mixup=1.0, cutmix=1.0)(images, labels, streams)
        values = torch.cat([mixed.labels, mixed.others]).float()
        cuts += bool(torch.isin(mixed.inputs[:, 0].flatten(), values).all())
    assert 70 < cuts < 130


def test_the_same_epoch_is_mixed_alike_and_another_one_is_not():
    images, labels = batch()
    first = [Mixing(mixup=1.0)(images, labels, Streams(4)) for _ in range(2)]
    other = Mixing(mixup=1.0)(images, labels, Streams(5))
    assert first[0].share == first[1].share
    assert torch.equal(first[0].inputs, first[1].inputs)
    assert first[0].share != other.share


def test_features_are_mixed_too_and_tokens_are_not_cut():
    f, labels = torch.randn(6, 9), torch.arange(6)
    mixed = Mixing(mixup=1.0)(f, labels, Streams(0))
    assert torch.allclose(
        mixed.inputs, mixed.share * f + (1 - mixed.share) * f[mixed.others], atol=1e-6
    )
    with pytest.raises(UserError, match=r"training\.finetune\.cutmix: found activations without"):
        Mixing(cutmix=1.0)(torch.randn(6, 5, 9), labels, Streams(0))
