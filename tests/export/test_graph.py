"""The preprocessing that goes into a file is the one that training validated with."""

from __future__ import annotations

import pytest
import torch

from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.data import center_crop
from gsfl_tune.export.graph import Prepare


@pytest.mark.parametrize("side", [37, 30, 64, 115], ids=["as is", "larger", "smaller", "much"])
def test_squares_become_what_training_saw(side):
    generator = torch.Generator().manual_seed(1)
    squares = torch.randint(0, 256, (4, side, side, 3), generator=generator, dtype=torch.uint8)
    preprocessing = Preprocessing(32, side, "crop", [0.4, 0.5, 0.6], [0.2, 0.3, 0.25])
    expected = center_crop(squares.clone(), 32, preprocessing.mean, preprocessing.std)
    found = Prepare(preprocessing)(squares)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
