import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gsfl_tune.losses import ClassCenters

CLASSES, LATENT = 5, 3
GROUPS = torch.tensor([0, 1, 0, 2, 1])


def batch(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    d = torch.randn(size, LATENT, generator=generator, dtype=torch.float64)
    return d, torch.randint(CLASSES - 1, (size,), generator=generator)  # the last class is absent


def reference_update(centers, d, y, rate):
    """One class and one sample at a time."""
    updated = centers.copy()
    for k in range(len(centers)):
        delta, count = np.zeros(centers.shape[1]), 0
        for i in range(len(y)):
            if y[i] == k:
                delta += centers[k] - d[i]
                count += 1
        updated[k] = centers[k] - rate * delta / (1 + count)
    return updated


def test_update_equals_a_loop_over_classes_and_samples():
    centers = ClassCenters(GROUPS, LATENT).double()
    expected = np.zeros((CLASSES, LATENT))
    for seed in range(4):
        d, y = batch(11, seed)
        centers.accumulate(d, y)
        centers.step(0.3)
        expected = reference_update(expected, d.numpy(), y.numpy(), 0.3)
    assert centers.centers.numpy() == pytest.approx(expected, abs=1e-12)
    assert (centers.centers[-1] == 0).all()


def test_micro_batches_make_one_update():
    d, y = batch(12)
    whole, parts = ClassCenters(GROUPS, LATENT).double(), ClassCenters(GROUPS, LATENT).double()
    whole.accumulate(d, y)
    for piece in range(0, 12, 4):
        parts.accumulate(d[piece : piece + 4], y[piece : piece + 4])
        assert (parts.centers == 0).all()
    for centers in (whole, parts):
        centers.step(0.5)
    assert torch.allclose(whole.centers, parts.centers)


def test_ranks_that_add_what_is_pending_agree_with_one_process():
    d, y = batch(12)
    whole = ClassCenters(GROUPS, LATENT)
    ranks = [ClassCenters(GROUPS, LATENT) for _ in range(2)]
    whole.accumulate(d, y)
    for rank, centers in enumerate(ranks):
        centers.accumulate(d[rank::2], y[rank::2])
    for name in ("pending_sum", "pending_count"):
        reduced = sum(getattr(c, name) for c in ranks)
        for centers in ranks:
            getattr(centers, name).copy_(reduced)
    for centers in (whole, *ranks):
        centers.step(0.5)
    assert torch.allclose(ranks[0].centers, whole.centers, atol=1e-6)
    assert torch.equal(ranks[0].centers, ranks[1].centers)


def test_a_step_without_samples_changes_nothing():
    centers = ClassCenters(GROUPS, LATENT)
    centers.accumulate(*batch(8))
    centers.step(0.5)
    before = centers.centers.clone()
    centers.step(0.5)
    assert torch.equal(centers.centers, before)


def test_centres_stay_float32_and_out_of_the_graph_under_autocast():
    centers = ClassCenters(GROUPS, LATENT)
    d, y = batch(8)
    d = d.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        half = F.linear(d, torch.eye(LATENT))
        assert half.dtype == torch.bfloat16
        centers.accumulate(half, y)
        centers.step(0.5)
        means = centers.group_means()
    assert centers.centers.dtype == means.dtype == torch.float32
    assert not centers.centers.requires_grad
    expected = reference_update(
        np.zeros((CLASSES, LATENT)), half.detach().double().numpy(), y.numpy(), 0.5
    )
    assert centers.centers.numpy() == pytest.approx(expected, abs=1e-6)


def test_group_means():
    centers = ClassCenters(GROUPS, LATENT)
    centers.centers.copy_(torch.arange(15.0).view(5, 3))
    assert centers.group_means().tolist() == [[3.0, 4.0, 5.0], [7.5, 8.5, 9.5], [9.0, 10.0, 11.0]]
    assert (centers.class_count, centers.group_count) == (5, 3)


def test_class_means_as_a_start():
    centers = ClassCenters(GROUPS, LATENT)
    d, y = batch(20)
    centers.init_class_means(d, y)
    for k in range(CLASSES - 1):
        assert torch.allclose(centers.centers[k], d[y == k].mean(0).float(), atol=1e-6)
    assert (centers.centers[-1] == 0).all()


def test_state_is_saved_with_its_groups():
    centers, other = ClassCenters(GROUPS, LATENT), ClassCenters(GROUPS.flip(0), LATENT)
    centers.accumulate(*batch(8))
    centers.step(0.5)
    other.load_state_dict(centers.state_dict())
    assert torch.equal(other.centers, centers.centers)
    assert torch.equal(other.group_means(), centers.group_means())


def test_numpy_groups_are_taken_and_wrong_ones_refused():
    assert ClassCenters(np.array([0, 1, 1]), 2).group_count == 2
    with pytest.raises(ValueError, match="without an empty one"):
        ClassCenters(torch.tensor([0, 2, 2]), 2)
    with pytest.raises(ValueError, match="non-negative"):
        ClassCenters(torch.tensor([0, -1]), 2)
