"""What methods add to the terms of a loss."""

from __future__ import annotations

import math

import pytest
import torch

from gsfl_tune.losses import LossTerms


def terms(total: float, cross_entropy: float, **others: float) -> LossTerms:
    named = {name: torch.tensor(value) for name, value in others.items()}
    return LossTerms(torch.tensor(total), torch.tensor(cross_entropy), named)


def numbers(found: LossTerms) -> dict[str, float]:
    return {name: float(value) for name, value in found.detached().items()}


def test_an_added_term_is_weighted_in_the_total_and_recorded_as_it_is():
    found = terms(3.0, 2.0, center=1.0).plus("pull", 0.5, torch.tensor(4.0))
    assert numbers(found) == {"loss": 5.0, "cross_entropy": 2.0, "center": 1.0, "pull": 4.0}


def test_an_added_term_without_weight_is_recorded_and_may_be_infinite():
    found = numbers(terms(3.0, 2.0).plus("share", 0.0, torch.tensor(math.inf)))
    assert found == {"loss": 3.0, "cross_entropy": 2.0, "share": math.inf}


def test_blended_terms_are_means_with_the_share_of_the_first():
    found = terms(3.0, 2.0, center=1.0).blended(terms(5.0, 4.0, center=9.0), 0.75)
    assert numbers(found) == pytest.approx({"loss": 3.5, "cross_entropy": 2.5, "center": 3.0})
