"""Samplers of installed packages: found by name, asked for proposals, refused in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gsfl_tune import plugins
from gsfl_tune.experiment.search_config import SamplerConfig
from gsfl_tune.plugins import BUILT_IN, PluginError
from gsfl_tune.search.samplers.factory import (
    create_sampler,
    draws_every_value,
    draws_everything,
    whole_space,
)
from gsfl_tune.search.samplers.plugin import SamplerRequest, sampler_factory, sampler_problem
from tests.search.experiments import experiment

CODE = """\
from optuna.samplers import RandomSampler
from gsfl_tune.search import SamplerFactory

class Asked(SamplerFactory):
    def create(self, request):
        sampler = RandomSampler(seed=request.seed)
        sampler.request = request
        return sampler

class Whole(Asked):
    whole_space = True

class Needs(Asked):
    def __init__(self, width):
        self.width = width

class Breaks(Asked):
    def __init__(self):
        raise FileNotFoundError(2, "no such file", "settings.json")

class Half(SamplerFactory):
    pass

class Other:
    pass

class Nothing(SamplerFactory):
    def create(self, request):
        return 3
"""
ENTRIES = {
    "asked": "samplers_of_tests:Asked",
    "whole": "samplers_of_tests:Whole",
    "needs": "samplers_of_tests:Needs",
    "breaks": "samplers_of_tests:Breaks",
    "half": "samplers_of_tests:Half",
    "other": "samplers_of_tests:Other",
    "nothing": "samplers_of_tests:Nothing",
    "gone": "samplers_of_tests.nowhere:Gone",
    "tpe": "samplers_of_tests:Asked",
}
SPACE = experiment().space


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with these samplers, as an installer leaves it."""
    info = tmp_path / "samplers_of_tests-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: samplers-of-tests\nVersion: 1.2\n")
    lines = [f"{name} = {value}" for name, value in ENTRIES.items()]
    (info / "entry_points.txt").write_text("\n".join(["[gsfl_tune.samplers]", *lines, ""]))
    (tmp_path / "samplers_of_tests.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    plugins._found.cache_clear()
    yield
    plugins._found.cache_clear()


def _request(seed: int, number: int) -> SamplerRequest:
    config = SamplerConfig(name="asked", startup_trials=7)
    found: SamplerRequest = create_sampler(config, SPACE, seed, number).request  # type: ignore[attr-defined]
    return found


def test_a_request_says_what_a_proposal_needs() -> None:
    request = _request(3, 5)
    assert (request.study_seed, request.number, request.startup_trials) == (3, 5, 7)
    # Inactive ones too.
    assert request.parameters == whole_space(SPACE)
    assert request.parameters.keys() == {each.name for each in SPACE.parameters}


def test_every_proposal_has_a_seed_of_its_own_and_the_same_one_again() -> None:
    seeds = {(study, number): _request(study, number).seed for study in (3, 4) for number in (0, 1)}
    assert len(set(seeds.values())) == 4
    assert all(_request(*key).seed == seed for key, seed in seeds.items())


def test_names_of_the_project_are_of_no_package() -> None:
    # Not even if a package claims one.
    for name in BUILT_IN["sampler"]:
        assert sampler_factory(name) is None
        assert sampler_problem(name) is None
    assert sampler_factory("asked") is not None
    assert sampler_problem("asked") is None


def test_a_package_says_whether_its_sampler_needs_the_whole_space() -> None:
    assert draws_everything("whole")
    assert not draws_everything("asked")
    assert not draws_everything("tpe")
    # It decides itself which values come first.
    assert not draws_every_value("asked")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("needs", "cannot be made without arguments .*width"),
        ("breaks", "cannot be made without arguments .FileNotFoundError: .*settings.json"),
        ("half", "cannot be made without arguments .*create"),
        ("other", "not a subclass of .*SamplerFactory"),
        ("gone", "cannot be loaded .*nowhere"),
    ],
)
def test_what_is_wrong_is_said_with_the_package(name: str, said: str) -> None:
    with pytest.raises(PluginError, match=said) as error:
        sampler_factory(name)
    assert sampler_problem(name) == str(error.value)
    assert f"sampler {name} of samplers-of-tests 1.2" in str(error.value)


def test_what_is_made_has_to_be_a_sampler() -> None:
    with pytest.raises(PluginError, match="sampler nothing is made as int"):
        create_sampler(SamplerConfig(name="nothing"), SPACE, 1, 0)
