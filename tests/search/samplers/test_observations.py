"""Models of a fixed space under ASHA: what they learn from, and that they do."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.replay.schedulers import SchedulerName
from benchmarks.replay.simulate import Outcome, Setting, simulate
from benchmarks.replay.spaces import EPOCHS
from benchmarks.replay.tables import Encoder
from gsfl_tune.experiment import Experiment
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from gsfl_tune.search.samplers.gaussian_process import Gp
from gsfl_tune.search.samplers.observations import Observed, comparable
from gsfl_tune.search.schedulers.asha import Asha
from tests.search.experiments import experiment
from tests.search.samplers.under_asha import under_asha

# The budget of searches that are compared.
TRAININGS = 25
MAXIMIZE = [StudyDirection.MAXIMIZE]
SPACE = """
name: t
data: {source: typefaces}
model:
  dropout: {float: [0, 0.8]}
  feature_scale: {float: [1, 64], log: true}
training:
  head:
    learning_rate: {float: [1e-4, 1e-1], log: true}
    weight_decay: {float: [1e-5, 1e-1], log: true}
"""


def _trial(number: int, state: str, *rungs: float) -> FrozenTrial:
    trial = create_trial(
        state=TrialState[state],
        value=rungs[-1] if state == "COMPLETE" else None,
        intermediate_values=dict(enumerate(rungs)),
    )
    trial.number = number
    return trial


def test_a_stopped_trial_counts_on_the_scale_of_the_end() -> None:
    trials = [
        _trial(0, "COMPLETE", 0.3, 0.5, 0.8),
        _trial(1, "COMPLETE", 0.4, 0.7, 0.9),
        _trial(2, "PRUNED", 0.35, 0.55),
        _trial(3, "PRUNED", 0.1),
        _trial(4, "RUNNING", 0.2),
        _trial(5, "FAIL", 0.9),
        _trial(6, "PRUNED"),
    ]
    found = comparable(trials, MAXIMIZE)
    # Gains to the second rung 0.2, 0.3 and 0.2; to the last 0.3 and 0.2.
    assert found == {
        0: [0.8],
        1: [0.9],
        2: [pytest.approx(0.55 + 0.25)],
        3: [pytest.approx(0.1 + 0.2 + 0.25)],
    }


def test_no_guess_is_better_than_what_came_to_its_end() -> None:
    trials = [_trial(0, "COMPLETE", 0.1, 0.6), _trial(1, "PRUNED", 0.5)]
    assert comparable(trials, MAXIMIZE)[1] == [0.6]
    losses = [_trial(0, "COMPLETE", 2.0, 1.0), _trial(1, "PRUNED", 1.5)]
    assert comparable(losses, [StudyDirection.MINIMIZE])[1] == [1.0]


def test_before_any_end_the_deepest_rung_is_the_scale() -> None:
    trials = [_trial(0, "RUNNING", 0.2, 0.5), _trial(1, "PRUNED", 0.1), _trial(2, "PRUNED", 0.15)]
    found = comparable(trials, MAXIMIZE)
    assert found == {1: [pytest.approx(0.4)], 2: [pytest.approx(0.45)]}


def test_of_several_objectives_each_counts_on_the_scale_of_the_end() -> None:
    """The size is known from the first rung on; the error falls from rung to rung."""

    def trial(number: int, state: str, *rungs: tuple[float, ...]) -> FrozenTrial:
        values = [*rungs[-1]] if state == "COMPLETE" else None
        made = create_trial(state=TrialState[state], values=values)
        made.number = number
        made.set_user_attr("rungs", {str(k): row[0] for k, row in enumerate(rungs)})
        others = {str(k): dict(zip(keys, row[1:], strict=False)) for k, row in enumerate(rungs)}
        made.set_user_attr("others", others)
        return made

    keys = ["size_mb", "validation/nll"]
    trials = [
        trial(0, "COMPLETE", (0.3, 40.0, 2.0), (0.5, 40.0, 1.5)),
        trial(1, "COMPLETE", (0.4, 20.0, 1.8), (0.8, 20.0, 1.4)),
        trial(2, "PRUNED", (0.2, 10.0, 2.5)),
        # Already as good at its first rung as the best at their end: no better for a guess.
        trial(3, "PRUNED", (0.7, 90.0, 1.5)),
        trial(4, "PRUNED", (0.2, 10.0)),
        trial(5, "RUNNING", (0.2, 10.0, 2.5)),
    ]
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE]
    found = comparable(trials, directions, keys)
    assert found == {
        0: [0.5, 40.0, 1.5],
        1: [0.8, 20.0, 1.4],
        2: [pytest.approx(0.2 + 0.3), 10.0, pytest.approx(2.5 - 0.45)],
        3: [0.8, 90.0, 1.4],
    }


def test_inactive_parameters_are_no_noise() -> None:
    space = experiment("training.head.learning_rate=0.01").space
    study = optuna.create_study()
    for groups in (2, 4):
        drawn = {"model.head": "plain", "model.groups.count": groups}
        study.enqueue_trial(drawn)
        space.suggest(study.ask(), everything=True)
    study.tell(0, 1.0)
    seen = Observed(study, space, 2)._get_trials()
    assert [each.state.name for each in seen] == ["COMPLETE", "RUNNING"]
    assert [each.params["model.groups.count"] for each in seen] == [3, 3]


def test_of_many_the_best_and_the_newest_are_kept() -> None:
    space = experiment().space
    study = optuna.create_study(direction="maximize")
    for number in range(40):
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, 100.0 if number == 7 else float(number % 10))
    seen = Observed(study, space, 40)
    seen.bound(12)
    numbers = [each.number for each in seen.ended]
    assert len(numbers) == 12
    assert numbers == sorted(numbers)
    assert {7, *range(36, 40)} <= set(numbers)


@pytest.mark.parametrize("name", ["gp", "cmaes"])
def test_all_draws_after_the_start_are_the_models_though_nearly_all_trials_are_stopped(
    name: str,
) -> None:
    complete, pruned, drawn = under_asha(name, Experiment.parse(SPACE), trials=14, startup=5)
    assert complete < 5 < pruned
    assert drawn == 14 - 5


@pytest.mark.parametrize("further", [["size_mb"], ["size_mb", "validation/nll"]])
def test_with_several_objectives_all_draws_after_the_start_are_the_models(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, further: list[str]
) -> None:
    def counting(self: Gp, *args: Any) -> dict[str, Any]:
        found = proposed(self, *args)
        drawn[-1] |= bool(found)
        return found

    proposed = Gp.sample_relative
    monkeypatch.setattr(Gp, "sample_relative", counting)
    tried = Experiment.parse(
        SPACE,
        overrides=[
            "search.sampler.name=gp",
            "search.sampler.startup_trials=5",
            f"search.objectives=[validation/accuracy, {', '.join(further)}]",
        ],
    )
    study, asha = open_study(tried, run), Asha(3, reduction=3)
    drawn: list[bool] = []
    for number in range(12):
        drawn.append(False)
        params = study.ask().params  # type: ignore[union-attr]
        # Later ones are worse: nearly all are stopped.
        value = -float(params["model.dropout"]) - 0.1 * number
        for k in range(3):
            others = {"size_mb": params["model.feature_scale"], "validation/nll": 2.0 - value - k}
            others = {key: others[key] for key in further}
            if asha.record(number, k, value):
                study.prune(number, value + k, k, others)
                break
            study.report(number, k, value + k, others)
        else:
            study.complete(number, value + 2, 2, others=others)
    counts = study.counts()
    assert counts["COMPLETE"] < 5 < counts["PRUNED"]
    assert drawn == [False] * 5 + [True] * 7


class Valley:
    """Best at one point; slow starters mislead at the first rungs, and chance does everywhere."""

    def __init__(self) -> None:
        found = Experiment.parse(SPACE)
        self.space = found.space
        self.defaults = found.default_params()
        self._encode = Encoder(self.space)

    def trial(self, params: dict[str, Any], draw: tuple[int, int]) -> Outcome:
        x = self._encode(params)
        truth = float(np.exp(-4 * np.square(x - [0.2, 0.75, 0.3, 0.85]).sum()))
        slow = 0.3 + 0.5 * x[-1]
        curve = truth * (1 - slow * np.exp(-np.arange(EPOCHS) / 6))
        noise = np.random.default_rng(draw).normal(0, 0.01, EPOCHS)
        return Outcome(curve + noise, truth, 1 / EPOCHS)


def _regret(name: str, seed: int, trials: int) -> float:
    """At equal budget: a number of full trainings, however many trials they are."""
    setting = Setting(name, SchedulerName("asha", 3, 3), workers=4, trials=trials)
    trace = simulate(Valley(), setting, seed)
    assert sum(trace.epochs) / EPOCHS > 0.9 * TRAININGS
    return 1 - float(trace.incumbent(np.array([TRAININGS / setting.workers]))[0])


@pytest.mark.parametrize(
    ("name", "seeds", "trials"),
    [("cmaes", 12, 60), ("gp", 3, 44)],
)
@pytest.mark.slow
def test_under_asha_models_beat_random_search(name: str, seeds: int, trials: int) -> None:
    anywhere = np.mean([_regret("random", seed, 110) for seed in range(seeds)])
    modelled = np.mean([_regret(name, seed, trials) for seed in range(seeds)])
    assert modelled < 0.8 * anywhere
