"""The contract holds for every sampler that is built in, and finds what breaks it."""

from __future__ import annotations

import random

import pytest
from optuna.samplers import RandomSampler, TPESampler

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.search_config import SamplerConfig
from gsfl_tune.experiment.space import Space
from gsfl_tune.plugins import BUILT_IN
from gsfl_tune.search import SamplerFactory
from gsfl_tune.search.samplers.factory import create_sampler, whole_space
from gsfl_tune.testing import check_sampler

SPACE = """
name: contract
data: {source: typefaces, image_size: 32}
model:
  backbone: test_efficientnet
  weights: none
  dropout: RANGE
  latent_dim: {int: [8, 32], step: 8}
  groups: {method: {choice: [kmeans, single, random]}}
"""
# A grid counts all configurations.
RANGES = {"grid": "{float: [0, 0.6], step: 0.1}"}


class BuiltIn(SamplerFactory):
    """One of ours, as a package would have it."""

    def __init__(self, name: str, space: Space) -> None:
        self.name, self.space = name, space

    def create(self, request):
        config = SamplerConfig(name=self.name, startup_trials=request.startup_trials)
        return create_sampler(config, self.space, request.study_seed, request.number)


@pytest.mark.parametrize("name", BUILT_IN["sampler"])
def test_samplers_that_are_built_in_keep_the_contract(name):
    text = SPACE.replace("RANGE", RANGES.get(name, "{float: [0, 0.6]}"))
    space = Experiment.parse(text).space
    parameters = whole_space(space)
    assert len(parameters) == 3
    check_sampler(lambda: BuiltIn(name, space), parameters=parameters)


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
