"""Random experiments for the property tests."""

from typing import Any

from hypothesis import strategies as st

# Leaves by what they take: low, high of the schema.
FLOATS = {
    "model.dropout": (0.0, 0.99),
    "model.feature_scale": (0.01, 100.0),
    "loss.reconstruction": (0.0, 10.0),
    "loss.class_center": (0.0, 10.0),
    "training.head.weight_decay": (0.0, 1.0),
}
INTEGERS = {
    "model.latent_dim": (2, 4096),
    "model.groups.count": (1, 100),
    "training.head.epochs": (1, 50),
    "data.image_size": (16, 1024),
}
WORDS = {
    "model.head": ["gsfl", "plain"],
    "model.pooling": ["average", "bilinear", "compact_bilinear", "gem"],
    "training.head.optimizer": ["adamw", "sgd"],
    "data.fit": ["crop", "pad", "squash"],
}
PATHS = [*FLOATS, *INTEGERS, *WORDS]


def _round(value: float) -> float:
    return float(f"{value:.6g}")


@st.composite
def distributions(draw: Any, path: str) -> dict[str, Any]:
    """A distribution of a leaf, as a file has it."""
    if path in WORDS:
        choices = draw(st.lists(st.sampled_from(WORDS[path]), min_size=1, unique=True))
        return _with_default(draw, {"choice": choices}, st.sampled_from(choices))
    low, high = FLOATS.get(path) or INTEGERS[path]
    number = st.integers(low, high) if path in INTEGERS else st.floats(low, high).map(_round)
    if draw(st.booleans()):
        choices = draw(st.lists(number, min_size=1, max_size=5, unique=True))
        return _with_default(draw, {"choice": choices}, st.sampled_from(choices))
    bounds = sorted([draw(number), draw(number)])
    kind = "int" if path in INTEGERS else "float"
    found: dict[str, Any] = {kind: bounds}
    option = draw(st.sampled_from(["plain", "log", "step"]))
    if option == "log" and bounds[0] > 0:
        found["log"] = True
    elif option == "step":
        found["step"] = draw(st.integers(1, 7)) if kind == "int" else draw(st.just(0.05))
        return found
    inside = (
        st.integers(*bounds)
        if kind == "int"
        else st.floats(*bounds).map(_round).filter(lambda value: bounds[0] <= value <= bounds[1])
    )
    return _with_default(draw, found, st.sampled_from(bounds) | inside)


def _with_default(draw: Any, found: dict[str, Any], values: Any) -> dict[str, Any]:
    if draw(st.booleans()):
        found["default"] = draw(values)
    return found


@st.composite
def conditions(draw: Any, path: str) -> Any:
    """A condition on a leaf, as a file has it."""
    if path in WORDS:
        words = draw(st.lists(st.sampled_from(WORDS[path]), min_size=1, unique=True))
        return words[0] if len(words) == 1 and draw(st.booleans()) else words
    low, high = FLOATS.get(path) or INTEGERS[path]
    at = draw(st.integers(int(low), int(high)))
    return {draw(st.sampled_from(["gt", "ge", "lt", "le"])): at}


@st.composite
def experiments(draw: Any) -> dict[str, Any]:
    """An experiment as a nested mapping; conditions name earlier leaves, so there is no circle."""
    paths = draw(st.permutations(PATHS))
    count = draw(st.integers(0, len(paths)))
    flat: dict[str, Any] = {}
    for index, path in enumerate(paths[:count]):
        leaf = draw(distributions(path))
        if index and draw(st.booleans()):
            others = draw(st.lists(st.sampled_from(paths[:index]), min_size=1, max_size=2))
            leaf["when"] = {other: draw(conditions(other)) for other in others}
            if draw(st.booleans()):
                leaf["else"] = leaf.get("default", next(iter(leaf.values()))[0])
        flat[path] = leaf
    return nested({"name": "t", "data.source": "typefaces", **flat})


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Dotted paths as nested mappings."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *above, key = path.split(".")
        section = tree
        for name in above:
            section = section.setdefault(name, {})
        section[key] = value
    return tree
