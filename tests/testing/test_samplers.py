"""The contract finds what breaks a sampler, and passes one that keeps it."""

from __future__ import annotations

import random

import pytest
from optuna.samplers import RandomSampler, TPESampler

from gsfl_tune.search import SamplerFactory
from gsfl_tune.testing import check_sampler


class Tpe(SamplerFactory):
    def create(self, request):
        return TPESampler(seed=request.seed, n_startup_trials=request.startup_trials)


def test_a_sound_sampler_passes():
    check_sampler(Tpe)


class Unseeded(SamplerFactory):
    def create(self, request):
        return RandomSampler(seed=random.SystemRandom().randrange(2**31))


class Deaf(SamplerFactory):
    def create(self, request):
        return RandomSampler(seed=request.number)


class Remembers(SamplerFactory):
    """Goes on where its own generator is, which a resume does not have."""

    def __init__(self):
        self.own = None

    def create(self, request):
        self.own = self.own or RandomSampler(seed=request.study_seed)
        return self.own


@pytest.mark.parametrize(
    ("factory", "complaint"),
    [
        (Unseeded, "in the same search again"),
        (Deaf, "the same with another seed"),
        (Remembers, "after a search was interrupted and resumed"),
    ],
)
def test_what_breaks_it_is_found(factory, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_sampler(factory)
