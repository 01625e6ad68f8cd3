"""No configuration is tried twice, no value of a choice is left out, and a space can end."""

from __future__ import annotations

import numpy as np
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from gsfl_tune.cli import main
from gsfl_tune.experiment import Experiment
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Study, open_study
from gsfl_tune.search.observers.base import Watcher
from gsfl_tune.search.ray_tune.searcher import StudySearcher
from gsfl_tune.search.samplers.configurations import Tried, count_configurations, key_of, walk
from tests.search.experiments import experiment

MODELS = ["tpe", pytest.param("gp", marks=pytest.mark.slow), "cmaes", "random", "sobol", "grid"]
# Two head kinds, three group counts for one of them, three dropouts: (3 + 1) * 3.
SMALL = ("model.latent_dim=16", "training.head.learning_rate=0.01")
POSSIBLE = 12


def _small(name: str, *overrides: str) -> Experiment:
    return experiment(
        *SMALL, f"search.sampler.name={name}", "search.sampler.startup_trials=3", *overrides
    )


def _search(study: Study, trials: int) -> int:
    """Trials that were handed out; every fourth is stopped, every fifth fails."""
    for count in range(trials):
        asked = study.ask()
        if asked is None:
            return count
        value = float(asked.params.get("model.dropout", 0))
        if asked.number % 4 == 3:
            study.prune(asked.number, value, 0)
        elif asked.number % 5 == 4:
            study.fail(asked.number, "broken")
        else:
            study.complete(asked.number, value, 0)
    return trials


@pytest.mark.parametrize("name", MODELS)
def test_a_finite_space_is_walked_once_and_ends(run: RunDirectory, name: str) -> None:
    tried = _small(name)
    study = open_study(tried, run)
    study.enqueue(tried.default_params(), "defaults")
    assert _search(study, 30) == POSSIBLE
    keys = [key_of(tried.space, trial.params) for trial in study.trials()]
    assert len(set(keys)) == len(keys) == POSSIBLE
    # The same after a resume, with nothing in memory.
    assert open_study(tried, run).ask() is None


@pytest.mark.parametrize("name", MODELS)
def test_what_has_no_effect_makes_no_other_configuration(run: RunDirectory, name: str) -> None:
    # The file does not say that a plain head has no groups: its trainings are the same to the bit.
    tried = _small(name, "model.groups.count={int: [2, 4]}")
    study = open_study(tried, run)
    study.enqueue(tried.default_params(), "defaults")
    assert _search(study, 30) == POSSIBLE
    params = [trial.params for trial in study.trials()]
    drawn = [(each["model.dropout"], each["model.groups.count"]) for each in params
             if each["model.head"] == "gsfl"]  # fmt: skip
    assert len(set(drawn)) == len(drawn) == 9
    plain = [each["model.dropout"] for each in params if each["model.head"] == "plain"]
    assert len(set(plain)) == len(plain) == 3
    assert open_study(tried, run).ask() is None


def test_a_continuous_number_without_effect_makes_none_either(run: RunDirectory) -> None:
    heads = "model.head={choice: [linear, plain]}"
    tried = _small("tpe", heads, "model.groups.count=2", "model.dropout={float: [0, 0.6]}")
    study = open_study(tried, run)
    assert _search(study, 12) == 12
    found = [trial.params["model.head"] for trial in study.trials()]
    assert found.count("linear") == 1
    alone = _small("tpe", "model.head=linear", "model.dropout={float: [0, 0.6]}")
    assert count_configurations(alone.space, 10) == 1
    assert count_configurations(tried.space, 10**6) is None
    # It has no effect itself, but decides what has.
    smoothing = "{choice: [0.1, 0.2], when: {model.dropout: {gt: 0.3}}, else: 0}"
    decides = _small(
        "tpe",
        "model.head=linear",
        "model.dropout={float: [0, 0.6]}",
        f"loss.label_smoothing={smoothing}",
    )
    assert count_configurations(decides.space, 10) is None


def test_a_count_does_not_look_at_everything() -> None:
    # A million values of what a plain head does not have.
    many = [f"{path}={{float: [0, 1], step: 0.01}}" for path in
            ("loss.reconstruction", "loss.class_center", "loss.shared_center")]  # fmt: skip
    tried = _small("tpe", "model.head=plain", "model.groups.count=2", *many)
    assert count_configurations(tried.space, 10) is None
    rest = Tried(tried.space)
    kind = FloatDistribution(0.0, 0.6, step=0.3)
    name = "model.dropout"
    running = create_trial(state=TrialState.RUNNING, params={name: 0.0}, distributions={name: kind})
    rest.look([running])
    assert not rest.exhausted()
    assert rest.draw(np.random.default_rng(0))["model.dropout"] > 0


def test_an_interrupted_study_ends_as_an_uninterrupted_one(run: RunDirectory) -> None:
    tried = _small("tpe")
    for _ in range(POSSIBLE + 1):
        _search(open_study(tried, run), 1)
    trials = open_study(tried, run).trials()
    assert len({key_of(tried.space, trial.params) for trial in trials}) == len(trials) == POSSIBLE


def test_a_finite_part_of_a_continuous_space_is_not_repeated(run: RunDirectory) -> None:
    # A plain head has three configurations, and the values make it look best.
    tried = _small(
        "tpe", "loss.class_center={float: [0, 1], when: {model.head: gsfl}}", "model.groups.count=2"
    )
    study = open_study(tried, run)
    for _ in range(25):
        asked = study.ask()
        assert asked is not None
        study.complete(asked.number, 0.0 if asked.params["model.head"] == "plain" else 1.0, 0)
    plain = [trial.params for trial in study.trials() if trial.params["model.head"] == "plain"]
    assert len(plain) == len({each["model.dropout"] for each in plain}) == 3


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "random", "sobol"])
def test_every_value_of_a_choice_comes_before_others_repeat(run: RunDirectory, name: str) -> None:
    optimizers = [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)]
    tried = experiment(
        f"model.backbone={{choice: [{', '.join(optimizers)}]}}",
        f"search.sampler.name={name}",
        "search.sampler.startup_trials=3",
    )
    study = open_study(tried, run)
    study.enqueue(tried.default_params(), "defaults")
    _search(study, 5)
    assert sorted(trial.params["model.backbone"] for trial in study.trials()) == sorted(optimizers)
    assert {trial.params["model.head"] for trial in study.trials()[:2]} == {"gsfl", "plain"}


def test_of_what_is_left_nothing_is_forgotten() -> None:
    tried = _small("tpe")
    rest = Tried(tried.space)
    assert not rest.exhausted()
    assert count_configurations(tried.space, 100) == POSSIBLE
    assert count_configurations(tried.space, POSSIBLE - 1) is None
    assert count_configurations(experiment().space, 10**6) is None
    assert rest.untried() == {"model.head": ["gsfl", "plain"]}


def test_a_walk_visits_every_configuration_once() -> None:
    tried = _small("tpe")
    points = [node.point for node in walk(tried.space)]
    found = {key_of(tried.space, point) for point in points}
    assert len(found) == len(points) == POSSIBLE
    # A group count is part of those with the head that has groups, and of no others.
    assert {len(point) for point in points if point["model.head"] == "plain"} == {2}
    assert {len(point) for point in points if point["model.head"] == "gsfl"} == {3}
    assert not any(node.endless for node in walk(tried.space))
    assert all(node.endless for node in walk(experiment().space))


def test_what_is_inactive_makes_no_other_configuration() -> None:
    space = _small("tpe").space
    plain = {"model.head": "plain", "model.dropout": 0.3}
    assert key_of(space, plain) == key_of(space, plain | {"model.groups.count": 4})
    gsfl = {"model.head": "gsfl", "model.dropout": 0.3, "model.groups.count": 3}
    assert key_of(space, gsfl) != key_of(space, gsfl | {"model.groups.count": 4})


def _trial(state: TrialState, dim: int) -> FrozenTrial:
    name = "model.latent_dim"
    kind = IntDistribution(2, 1000)
    return create_trial(state=state, params={name: dim}, distributions={name: kind})


def test_draws_reach_the_last_untried_configuration_and_then_refuse() -> None:
    tried = experiment(
        "model.head=plain", "training.head.learning_rate=0.01", "model.dropout=0",
        "model.latent_dim={int: [2, 1000]}",
    )  # fmt: skip
    trials = [_trial(TrialState.FAIL, dim) for dim in range(2, 1001) if dim != 777]
    rest = Tried(tried.space)
    rest.look(trials)
    assert len(rest) == 998
    for seed in range(5):
        assert rest.draw(np.random.default_rng(seed)) == {"model.latent_dim": 777}
    # A trial that only waits was not tried; one that runs was.
    rest.look([*trials, create_trial(state=TrialState.WAITING)])
    assert not rest.exhausted()
    rest.look([*trials, _trial(TrialState.RUNNING, 777)])
    assert rest.exhausted()
    with pytest.raises(ValueError, match="every configuration"):
        rest.draw(np.random.default_rng(0))


class Notices(Watcher):
    """Keeps what a user would read."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


def test_the_search_says_that_there_is_nothing_left(run: RunDirectory) -> None:
    study = open_study(_small("tpe"), run)
    _search(study, POSSIBLE)
    said = Notices()
    searcher = StudySearcher(study, 50, lambda asked: pytest.fail("no trial"), watcher=said)
    assert searcher.suggest("one") == StudySearcher.FINISHED
    assert said.texts == [
        f"search: every configuration of the space has been tried ({POSSIBLE}); "
        "no more trials begin"
    ]
    assert all(trial.state != TrialState.RUNNING for trial in study.trials())


def test_check_says_how_many_there_are(tmp_path, capsys) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(
        "name: t\ndata: {source: typefaces}\nmodel: {weights: none, head: {choice: [gsfl, plain]},"
        " dropout: {float: [0, 0.2], step: 0.1}}\nsearch: {trials: 16, control: matched}\n"
    )
    assert main(["check", str(file)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "6 configurations are possible: the search ends when they are tried, before 16 trials"
        in shown
    )
    # A plain head has no groups: 2 * 3 and 3.
    assert main(["check", str(file), "--set", "model.groups.count={choice: [2, 3]}"]) == 0
    assert "9 configurations are possible" in " ".join(capsys.readouterr().out.split())
    assert main(["check", str(file), "--set", "search.trials=6"]) == 0
    assert "configurations are possible" not in capsys.readouterr().out
