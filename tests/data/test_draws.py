"""Random numbers of single images."""

from __future__ import annotations

import torch

from gsfl_tune.data.draws import image_draws


def test_numbers_of_an_image_do_not_depend_on_its_batch():
    positions = torch.tensor([5, 0, 17, 3])
    whole = image_draws(4, "method", positions, 3)
    parts = [image_draws(4, "method", part, 3) for part in positions.split([1, 3])]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(image_draws(4, "method", positions, 2), whole[:, :2])


def test_seed_name_and_position_give_other_numbers():
    positions = torch.arange(400)
    one = image_draws(4, "method", positions, 2)
    for other in (image_draws(5, "method", positions, 2), image_draws(4, "else", positions, 2)):
        assert not (one == other).any()
    values = one.flatten()
    # Of 24 bits: two may be equal by chance.
    assert len(values.unique()) > 795
    assert 0 <= values.min() < 0.01
    assert 0.99 < values.max() < 1
    assert abs(float(values.mean()) - 0.5) < 0.05
    assert abs(float(torch.corrcoef(one.T)[0, 1])) < 0.15
