"""What holds for every experiment."""

import pickle

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsfl_tune.experiment import Config, Experiment
from gsfl_tune.experiment.fields import MISSING
from gsfl_tune.experiment.nodes import read_yaml, write_yaml
from tests.experiment.strategies import PATHS, experiments, nested

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(
        ["1e-3", "yes", "on", "~", "null", "0x1F", "010", "1_0", ".5", "=", "<<", "-"]
    )
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abcdefgh.@", min_size=1, max_size=6), inner, max_size=4)
    ),
    max_leaves=15,
)


def experiment_of(tree):
    return Experiment.parse(write_yaml(tree))


def draw(experiment, seed, everything=False):
    """Parameters as a random Optuna trial draws them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    params = experiment.space.suggest(trial, everything=everything)
    # Values on steps are decimals; floating point misses some by a hair.
    assert params == {
        name: pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
        for name, value in trial.params.items()
    }
    return params


def leaf(config: Config, path: str):
    value = config
    for key in path.split("."):
        value = getattr(value, key)
    return value


def holds(condition, value):
    """The grammar's conditions, written once more from its description."""
    if isinstance(condition, dict):
        compare = {
            "gt": lambda bound: value > bound,
            "ge": lambda bound: value >= bound,
            "lt": lambda bound: value < bound,
            "le": lambda bound: value <= bound,
        }
        return all(compare[kind](bound) for kind, bound in condition.items())
    return value in condition if isinstance(condition, list) else value == condition


@given(TREES)
@settings(max_examples=50, deadline=None)
def test_yaml_reads_back_what_it_wrote(tree):
    problems = []
    node = read_yaml(write_yaml(tree), "t", problems)
    assert not problems
    assert node.plain() == tree
    assert repr(node.plain()) == repr(tree)


@given(experiments())
@settings(max_examples=30, deadline=None)
def test_to_yaml_loads_back_to_an_equal_experiment(tree):
    experiment = experiment_of(tree)
    again = Experiment.parse(experiment.to_yaml(), file="elsewhere.yaml")
    assert again == experiment
    assert again.space.parameters == experiment.space.parameters
    assert again.defaults() == experiment.defaults()
    assert pickle.loads(pickle.dumps(experiment)) == experiment


@given(experiments(), st.integers(0, 2**31), st.booleans())
@settings(max_examples=30, deadline=None)
def test_what_is_drawn_makes_a_valid_configuration(tree, seed, everything):
    experiment = experiment_of(tree)
    params = draw(experiment, seed, everything)
    config = experiment.configure(params)
    active = experiment.space.active(params)
    if everything:
        assert set(params) == {parameter.name for parameter in experiment.space.parameters}
    else:
        assert set(params) == active
    for parameter in experiment.space.parameters:
        assert parameter.name not in params or parameter.distribution.contains(
            params[parameter.name]
        )
        if parameter.name in active:
            assert leaf(config, parameter.path) == params[parameter.name]


@given(experiments(), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_a_parameter_is_active_exactly_when_its_condition_holds(tree, seed):
    experiment = experiment_of(tree)
    params = draw(experiment, seed)
    config = experiment.configure(params)
    schema_defaults = Config.model_validate({"name": "t", "data": {"source": "typefaces"}})
    for path in PATHS:
        written = tree
        for key in path.split("."):
            written = written.get(key, {})
        if not written:
            continue
        conditions = written.get("when", {})
        active = all(holds(item, leaf(config, other)) for other, item in conditions.items())
        assert (path in params) == active
        if not active:
            expected = written.get("else", leaf(schema_defaults, path))
            assert leaf(config, path) == expected


@given(
    experiments(),
    st.dictionaries(
        st.sampled_from(PATHS), st.integers(-5, 5000) | st.floats(-5, 5000) | st.just("sgd")
    ),
)
@settings(max_examples=30, deadline=None)
def test_clip_gives_allowed_values_and_says_what_it_changed(tree, wanted):
    experiment = experiment_of(tree)
    params, notices = experiment.space.clip(wanted)
    distributions = {each.name: each.distribution for each in experiment.space.parameters}
    assert set(params) == experiment.space.active(params)
    for name, value in params.items():
        assert distributions[name].contains(value)
    config = experiment.configure(params)
    changed = {path for path, value in wanted.items() if leaf(config, path) != value}
    noticed = {notice.partition(":")[0] for notice in notices}
    # Rounding to a step of a float may be noticed or not; all else must be.
    assert changed >= noticed
    assert all(
        abs(leaf(config, path) - wanted[path]) < 1e-6 * max(1, abs(wanted[path]))
        for path in changed - noticed
    )


@given(experiments(), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_drawn_values_survive_clipping(tree, seed):
    experiment = experiment_of(tree)
    params = draw(experiment, seed)
    assert experiment.space.clip(params) == (params, [])


@given(experiments(), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_bounds_hold_whatever_is_drawn(tree, seed):
    experiment = experiment_of(tree)
    config = experiment.configure(draw(experiment, seed))
    for path in PATHS:
        found, value = experiment.bounds(path), leaf(config, path)
        if isinstance(found, tuple):
            assert found[0] <= value <= found[1]
        else:
            assert value in (found if isinstance(found, list) else [found])


@given(
    experiments(), st.sampled_from(["model.groups.count", "model.latent_dim"]), st.integers(2, 60)
)
@settings(max_examples=25, deadline=None)
def test_clamp_bounds_what_is_drawn(tree, path, high):
    experiment = experiment_of(tree).clamp(path, high)
    assert max(experiment.values(path)) <= high
    assert leaf(experiment.defaults(), path) <= high


@given(experiments(), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_fixing_what_was_drawn_leaves_nothing_to_draw(tree, seed):
    experiment = experiment_of(tree)
    config = experiment.configure(draw(experiment, seed))
    fixed = experiment.fixed({path: leaf(config, path) for path in PATHS})
    assert not fixed.space.parameters
    assert fixed.defaults() == config


def test_nothing_but_the_named_leaf_is_missing():
    assert MISSING is pickle.loads(pickle.dumps(MISSING))
    assert nested({"a.b": 1, "a.c": 2}) == {"a": {"b": 1, "c": 2}}
