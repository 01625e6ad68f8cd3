"""Which dimensions do not discriminate, and how they are perturbed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.experiment.pretrain_config import DiscriminativeConfig
from gsfl_tune.training.pretrain.dimensions import DimensionStatistics, lowest, perturbed
from gsfl_tune.training.pretrain.gradcam import cam, gradients, importance
from tests.training.pretrain.conftest import seeded


def test_running_statistics_are_weighted_means_of_all_batches():
    generator = seeded()
    batches = [2 + torch.randn(8, 5, generator=generator) for _ in range(4)]
    scores = [torch.rand(5, generator=generator) for _ in range(4)]
    statistics = DimensionStatistics(5, memory=0.7)
    for batch, score in zip(batches, scores, strict=True):
        statistics.observe(batch, score)
    weights = np.array([0.7 ** (3 - i) for i in range(4)])
    weights /= weights.sum()
    data = np.stack([batch.double().numpy() for batch in batches])
    mean = np.einsum("t,tbc->c", weights, data) / 8
    square = np.einsum("t,tbc->c", weights, data**2) / 8
    assert np.allclose(statistics.variance, square - mean**2, atol=1e-10)
    wanted = np.einsum("t,tc->c", weights, np.stack([s.double().numpy() for s in scores]))
    assert np.allclose(statistics.importance, wanted, atol=1e-10)


def test_without_memory_they_are_those_of_the_last_batch():
    statistics = DimensionStatistics(3, memory=0.0)
    for seed in (1, 2):
        batch = torch.randn(6, 3, generator=seeded(seed))
        statistics.observe(batch, torch.ones(3))
    assert np.allclose(statistics.variance, batch.double().numpy().var(axis=0))


@pytest.mark.parametrize(
    ("combine", "expected"),
    [("union", [True, True, True, False]), ("intersection", [False, True, False, False])],
)
def test_both_criteria_are_united_or_intersected(combine, expected):
    statistics = DimensionStatistics(4, memory=0.0)
    # Deviations 1, 2, 3, 4; importances 3, 1, 2, 4: the lower halves are {0, 1} and {1, 2}.
    batch = torch.tensor([[1.0, 2, 3, 4], [-1, -2, -3, -4]])
    statistics.observe(batch, torch.tensor([3.0, 1, 2, 4]))
    assert statistics.not_discriminative(0.5, combine).tolist() == expected


def test_a_share_is_rounded_down():
    values = torch.tensor([5.0, 1, 3, 2, 4, 6, 7, 8, 9, 10])
    assert [int(lowest(values, share).sum()) for share in (0, 0.29, 0.3, 1)] == [0, 2, 3, 10]
    assert lowest(values, 0.29).nonzero()[:, 0].tolist() == [1, 3]


@pytest.mark.parametrize("kind", ["noise", "swap", "zero"])
def test_other_dimensions_are_kept(kind):
    vectors = torch.randn(7, 4, generator=seeded())
    chosen = torch.tensor([True, False, True, False])
    config = DiscriminativeConfig(perturbation=kind)
    found = perturbed(vectors, chosen, torch.ones(4), config, seeded())
    assert torch.equal(found[:, ~chosen], vectors[:, ~chosen])
    assert not torch.isclose(found[:, chosen], vectors[:, chosen]).any()


def test_zero_and_swap_give_zeros_and_values_of_other_images():
    vectors = torch.arange(12.0).view(6, 2) + 1
    every = torch.tensor([True, True])
    zero = perturbed(
        vectors, every, torch.ones(2), DiscriminativeConfig(perturbation="zero"), seeded()
    )
    assert not zero.any()
    swap = DiscriminativeConfig(perturbation="swap")
    for seed in range(20):
        found = perturbed(vectors, every, torch.ones(2), swap, seeded(seed))
        # Whole rows move: each is given once, and none stays.
        assert sorted(found[:, 0].tolist()) == vectors[:, 0].tolist()
        assert (found != vectors).all()


def test_noise_has_the_deviation_of_the_dimension_times_its_strength():
    vectors = torch.zeros(20000, 2)
    config = DiscriminativeConfig(perturbation="noise", strength=0.5)
    found = perturbed(vectors, torch.ones(2).bool(), torch.tensor([1.0, 4.0]), config, seeded())
    assert found.std(0).tolist() == pytest.approx([0.5, 2.0], rel=0.05)


def maps_and_loss():
    maps = torch.randn(5, 3, 2, 4, generator=seeded(), dtype=torch.float64).requires_grad_()
    weight = torch.randn(3, generator=seeded(2), dtype=torch.float64)
    each = torch.tanh(maps.mean((2, 3)) @ weight) + (maps**2).mean((1, 2, 3))
    return maps, each


def test_importance_is_the_mean_of_gradient_times_activation():
    maps, each = maps_and_loss()
    [slope] = gradients(each.mean(), [maps])
    for kind in ("absolute", "positive"):
        expected = np.zeros(3)
        for image in range(5):
            # The gradient of the image's own loss, by itself.
            own = torch.autograd.grad(each[image], maps, retain_graph=True)[0][image].numpy()
            part = (own * maps[image].detach().numpy()).mean(axis=(1, 2))
            expected += np.abs(part) if kind == "absolute" else np.maximum(-part, 0)
        assert np.allclose(importance(maps, slope, kind), expected / 5)


@pytest.mark.parametrize(("objective", "sign"), [("loss", 1), ("agreement", -1)])
def test_a_grad_cam_map_weighs_dimensions_by_their_mean_gradient(objective, sign):
    maps, each = maps_and_loss()
    [slope] = gradients(each.mean(), [maps])
    for image, found in enumerate(cam(maps, slope, objective).numpy()):
        own = torch.autograd.grad(each[image], maps, retain_graph=True)[0][image].numpy()
        alpha = sign * own.mean(axis=(1, 2))
        expected = np.zeros((2, 4))
        for channel in range(3):
            expected += alpha[channel] * maps[image, channel].detach().numpy()
        assert np.allclose(found, np.maximum(expected, 0))
