"""The next trial is known before it exists, is no repeat, and leaves the study as it was."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from gsfl_tune.experiment.search_config import SamplerConfig
from gsfl_tune.search.samplers.configurations import Tried, count_configurations
from gsfl_tune.search.samplers.dry_run import ReadOnlyStudy, propose, propose_new
from gsfl_tune.search.samplers.factory import create_sampler
from tests.search.experiments import experiment

SPACE = experiment(
    "model.feature_scale={float: [1, 64], log: true}",
    "model.dropout={float: [0, 0.7]}",
    "model.latent_dim={int: [8, 512], log: true}",
)
# Five values of one parameter.
FIVE = experiment(
    "model.head=plain", "model.dropout=0", "training.head.learning_rate=0.01",
    "model.latent_dim={int: [2, 6]}",
).space  # fmt: skip
NAME = "model.latent_dim"


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "random", "sobol"])
def test_a_proposal_without_a_trial_is_the_one_of_a_trial(name: str) -> None:
    config = SamplerConfig(name=name, startup_trials=5)  # type: ignore[arg-type]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for number in range(8):
        sampler = create_sampler(config, SPACE.space, 3, number)
        before = len(study.trials)
        proposed = propose(study, sampler, SPACE.space, number)
        assert len(study.trials) == before
        study.sampler = create_sampler(config, SPACE.space, 3, number)
        trial = study.ask()
        params = SPACE.space.suggest(trial)
        assert proposed.params == params
        if number % 4 != 1:
            study.tell(trial, params["model.feature_scale"] - params["model.dropout"])


class Noting(RandomSampler):
    """Keeps a note in its own trial, as Optuna's CMA-ES does, and would change others."""

    def before_trial(self, study: Any, trial: FrozenTrial) -> None:
        study._storage.set_trial_system_attr(trial._trial_id, "generation", 4)
        with pytest.raises(AttributeError, match="its own trial only"):
            study._storage.set_trial_user_attr(0, "x", 1)
        with pytest.raises(AttributeError, match="its own trial only"):
            study._storage.create_new_trial(0)


def test_a_samplers_notes_are_kept_for_the_trial_and_nothing_is_written() -> None:
    study = optuna.create_study(sampler=RandomSampler(seed=1))
    study.tell(study.ask(), 1.0)
    before = copy.deepcopy(study.trials)
    found = propose(study, Noting(seed=2), SPACE.space, 1)
    assert found.notes == {"generation": 4}
    assert study.trials == before
    # Reads are those of the study itself.
    assert ReadOnlyStudy(study).best_value == 1.0


def test_wanted_values_of_a_choice_come_whatever_the_sampler_prefers() -> None:
    study = optuna.create_study()
    sampler = PartialFixedSampler({"model.head": "plain"}, RandomSampler(seed=2))
    preferred = propose(study, sampler, SPACE.space, 0)
    assert preferred.params["model.head"] == "plain"
    wanted = propose(study, sampler, SPACE.space, 0, first={"model.head": ["gsfl"]})
    assert wanted.params["model.head"] == "gsfl"
    # Another head has parameters of its own.
    assert "model.groups.count" in wanted.params
    assert "model.groups.count" not in preferred.params


def _tried(*dims: int) -> optuna.Study:
    study = optuna.create_study()
    for dim in dims:
        kinds = {NAME: IntDistribution(2, 6)}
        study.add_trial(create_trial(value=0.0, params={NAME: dim}, distributions=kinds))
    return study


def test_a_sampler_hears_what_was_rejected_and_then_chance_decides() -> None:
    study = _tried(2, 3, 5, 6)
    heard: list[list[Any]] = []

    def stubborn(turned_down: Sequence[Mapping[str, Any]]) -> BaseSampler:
        heard.append([each[NAME] for each in turned_down])
        return PartialFixedSampler({NAME: 3}, RandomSampler(seed=1))

    found = propose_new(study, stubborn, FIVE, 4, Tried(FIVE), seed=0)
    assert found is not None
    assert found.params == {NAME: 4}
    assert heard == [[3] * count for count in range(len(heard))]
    assert len(heard) > 1


def test_a_sampler_that_has_another_idea_is_believed() -> None:
    study = _tried(2, 3)

    def willing(turned_down: Sequence[Mapping[str, Any]]) -> BaseSampler:
        return PartialFixedSampler({NAME: 3 + 2 * len(turned_down)}, RandomSampler(seed=1))

    found = propose_new(study, willing, FIVE, 2, Tried(FIVE), seed=0)
    assert found is not None
    assert found.params == {NAME: 5}


def test_of_a_space_in_which_all_was_tried_there_is_no_proposal() -> None:
    assert count_configurations(FIVE, 100) == 5
    study = _tried(2, 3, 4, 5)
    tried = Tried(FIVE)

    def anything(turned_down: Sequence[Mapping[str, Any]]) -> BaseSampler:
        return RandomSampler(seed=len(turned_down))

    last = propose_new(study, anything, FIVE, 4, tried, seed=0)
    assert last is not None
    assert last.params == {NAME: 6}
    # A trial that runs counts as tried too.
    running = {NAME: IntDistribution(2, 6)}
    study.add_trial(
        create_trial(state=TrialState.RUNNING, params=last.params, distributions=running)
    )
    assert propose_new(study, anything, FIVE, 5, tried, seed=0) is None
