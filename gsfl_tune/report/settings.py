"""The searched parameters of a configuration and their position in the range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gsfl_tune.experiment import Distribution
from gsfl_tune.experiment.edges import range_end
from gsfl_tune.report.files import RunFiles
from gsfl_tune.report.tables import show


@dataclass(frozen=True)
class Setting:
    """Holds one searched parameter of the winner.

    Attributes:
        name: Name of the parameter.
        value: The winner's value, as text.
        drawn_from: Its distribution, as text.
        edge: ``lower`` or ``upper`` if the value is at the end of its range, else empty.
    """

    name: str
    value: str
    drawn_from: str
    edge: str


def settings(files: RunFiles, params: Mapping[str, Any]) -> list[Setting]:
    """Returns the searched parameters with their distributions.

    Args:
        files: The run.
        params: Maps each parameter to its value.
    """
    known: dict[str, Distribution] = {}
    if files.experiment is not None:
        known = {each.name: each.distribution for each in files.experiment.space.parameters}
    return [
        Setting(
            name,
            show(value),
            known[name].describe() if name in known else "",
            range_end(name, known[name], value) if name in known else "",
        )
        for name, value in params.items()
    ]


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flattens a nested configuration to dotted paths and values, as text."""
    for key, value in content.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from flat(value, path)
        else:
            yield path, "null" if value is None else str(value)
