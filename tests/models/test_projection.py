import pytest
import torch
from sklearn.decomposition import PCA

from gsfl_tune.models import fit_projection


def make_maps(count=6, channels=12):
    torch.manual_seed(0)
    mixing = torch.randn(channels, channels)
    return [
        torch.einsum("oc,bchw->bohw", mixing, torch.randn(5, channels, 4, 3)) + 7
        for _ in range(count)
    ]


def test_projection_is_the_pca_of_local_descriptors():
    maps = make_maps()
    projection = fit_projection(iter(maps), 5)
    rows = torch.cat([m.movedim(1, -1).reshape(-1, 12) for m in maps]).numpy()
    expected = PCA(5, svd_solver="full").fit(rows).transform(rows)
    ours = torch.cat([projection(m).movedim(1, -1).reshape(-1, 5) for m in maps]).numpy()
    assert abs(ours) == pytest.approx(abs(expected), abs=1e-3)


def test_projection_is_fixed_and_deterministic():
    maps = make_maps()
    first, second = fit_projection(maps, 4), fit_projection(maps, 4)
    assert torch.equal(first.weight, second.weight)
    assert not list(first.parameters())
    largest = first.weight.gather(1, first.weight.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()
    assert set(first.state_dict()) == {"weight", "mean"}


def test_batches_do_not_matter():
    maps = torch.cat(make_maps())
    one, many = fit_projection([maps], 4), fit_projection(maps.split(3), 4)
    assert torch.allclose(one.weight, many.weight, atol=1e-5)
    assert torch.allclose(one.mean, many.mean, atol=1e-5)


def test_a_projection_cannot_add_channels_or_come_from_nothing():
    with pytest.raises(ValueError, match="13 of 12"):
        fit_projection(make_maps(1), 13)
    with pytest.raises(ValueError, match="without feature maps"):
        fit_projection([], 2)
