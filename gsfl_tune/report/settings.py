"""The searched parameters of a configuration, and where in their ranges they lie."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gsfl_tune.experiment import Categorical, Distribution, Integer
from gsfl_tune.experiment.fields import leaves
from gsfl_tune.report.files import RunFiles
from gsfl_tune.report.tables import show

# A value this close to the end of a range (in shares of it) may want to go further.
_EDGE = 0.03


@dataclass(frozen=True)
class Setting:
    """One searched parameter of the winner.

    Attributes:
        name: Of the parameter.
        value: The winner's, as text.
        drawn_from: What it was drawn from, as text.
        edge: ``lower`` or ``upper`` where it lies at the end of its range, else empty.
    """

    name: str
    value: str
    drawn_from: str
    edge: str


def settings(files: RunFiles, params: Mapping[str, Any]) -> list[Setting]:
    """Searched parameters with what they were drawn from.

    Args:
        files: The run.
        params: Parameter to value.
    """
    known: dict[str, Distribution] = {}
    if files.experiment is not None:
        known = {each.name: each.distribution for each in files.experiment.space.parameters}
    return [
        Setting(
            name,
            show(value),
            known[name].describe() if name in known else "",
            _edge(name, known[name], value) if name in known else "",
        )
        for name, value in params.items()
    ]


def _edge(name: str, drawn_from: Distribution, value: Any) -> str:
    """The end of its range that a value lies at, if the range could go on there."""
    if isinstance(drawn_from, Categorical) or not isinstance(value, int | float):
        return ""
    low, high, at = float(drawn_from.low), float(drawn_from.high), float(value)
    if drawn_from.log and low > 0 and at > 0:
        low, high, at = math.log(low), math.log(high), math.log(at)
    if high <= low:
        return ""
    place = (at - low) / (high - low)
    if _EDGE < place < 1 - _EDGE:
        return ""
    leaf = leaves().get(name.partition("@")[0])
    step = 1 if isinstance(drawn_from, Integer) else 1e-3 * (drawn_from.high - drawn_from.low)
    # A dropout below 0 is not worth a word.
    beyond = drawn_from.low - step if place <= _EDGE else drawn_from.high + step
    if drawn_from.log and beyond <= 0:
        beyond = 0.5 * drawn_from.low
    if leaf is not None and not leaf.accepts(beyond):
        return ""
    return "lower" if place <= _EDGE else "upper"


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted paths and values of a nested configuration, as text."""
    for key, value in content.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from flat(value, path)
        else:
            yield path, "null" if value is None else str(value)
