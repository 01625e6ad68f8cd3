"""Whatever a file holds, it is an experiment or a list of problems, never a crash."""

import contextlib

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.experiment.fields import leaves, sections
from gsfl_tune.experiment.nodes import write_yaml

WORDS = sorted(
    {
        *(key for model in sections().values() for key in model.model_fields),
        *("choice", "int", "float", "log", "step", "default", "when", "else", "gt", "le", "x"),
        *leaves(),
    }
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([*WORDS, "adamw", "sgd", "gsfl", "typefaces", "kmeans", "all", "", "x/y"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=20,
)
DISTRIBUTIONS = st.fixed_dictionaries(
    {},
    optional={
        "choice": st.lists(SCALARS, max_size=3) | VALUES,
        "int": st.lists(st.integers(-3, 200), min_size=2, max_size=2) | VALUES,
        "float": st.lists(st.floats(-1, 5), min_size=2, max_size=2) | VALUES,
        "log": st.booleans() | SCALARS,
        "step": st.integers(-1, 5) | SCALARS,
        "default": SCALARS,
        "else": SCALARS,
        "when": st.dictionaries(st.sampled_from(sorted(leaves())), SCALARS, max_size=2) | VALUES,
    },
)
LEAF = SCALARS | DISTRIBUTIONS | st.lists(DISTRIBUTIONS, max_size=3) | VALUES


def section(path):
    keys = {}
    for key in sections()[path].model_fields:
        inner = f"{path}.{key}" if path else key
        keys[key] = section(inner) if inner in sections() else LEAF
    keys["x"] = DISTRIBUTIONS | VALUES
    return st.fixed_dictionaries({}, optional=keys) | (VALUES if path else st.nothing())


def survives(text, overrides=()):
    with contextlib.suppress(ExperimentError):
        experiment = Experiment.parse(text, overrides=overrides)
        experiment.space.clip(experiment.default_params())
        assert Experiment.parse(experiment.to_yaml()) == experiment


@given(section(""), st.booleans())
@settings(max_examples=50, deadline=None)
@example(
    {"model": {"x": {"choice": {"a": {}, "b": {}}}}, "search": {"enqueue": [{"model.x": [1]}]}},
    True,
)
@example({"search": {"enqueue": [1, {"model": {}}]}}, True)
@example({"model": {"x": {"choice": {"a": {"groups": 5}}}}}, True)
def test_any_tree(tree, start_well):
    if start_well:
        tree = {**tree, "name": "t", "data": {"source": "typefaces"}}
    survives(write_yaml(tree))


@given(st.text(alphabet="ab:{}[]-,&*!'\"#|>%@`\n\t 01.~?\\", max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_text(text):
    survives(text)


@given(st.sampled_from(WORDS) | st.text(max_size=10), st.text(max_size=20) | VALUES.map(write_yaml))
@settings(max_examples=100, deadline=None)
def test_any_override(path, value):
    survives("name: t\ndata: {source: typefaces}\n", [f"{path}={value}"])
