"""Which finalist wins: the metric, then NLL, then what a training costs."""

from __future__ import annotations

from gsfl_tune.search.finals.protocol import Candidate, best
from tests.training.conftest import tiny_config


def candidate(label: str, accuracy: float, nll: float, latent_dim: int = 16) -> Candidate:
    config = tiny_config(model={"latent_dim": latent_dim})
    rows = [{"accuracy": accuracy + move, "nll": nll} for move in (-0.01, 0.01)]
    return Candidate(label, config, 0, validation=rows)


def test_ties_are_broken_by_nll_then_by_cost():
    def cost(config):
        return float(config.model.latent_dim)

    cheap = candidate("cheap", 0.8, 0.9, 8)
    sure = candidate("sure", 0.8, 0.5, 64)
    dear = candidate("dear", 0.8, 0.5, 128)
    right = candidate("right", 0.81, 2.0, 256)
    assert best([cheap, sure, dear, right], "validation/accuracy", cost).label == "right"
    assert best([cheap, dear, sure], "validation/accuracy", cost).label == "sure"
    assert best([cheap, sure], "validation/nll", cost).label == "sure"


def test_what_was_not_validated_with_nll_still_competes():
    old = Candidate("old", tiny_config(), 0, validation=[{"accuracy": 0.9}])
    assert best([old, candidate("new", 0.8, 0.5)], "validation/accuracy").label == "old"
