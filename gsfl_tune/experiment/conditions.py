"""Conditions that decide when a parameter takes part in a trial."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gsfl_tune.experiment.distributions import (
    Categorical,
    Distribution,
    Float,
    Integer,
    Scalar,
    is_number,
    same,
)
from gsfl_tune.experiment.fields import number, show

COMPARISONS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


@dataclass(frozen=True)
class Condition:
    """Describes what a leaf must be: one of some values, or a number within bounds.

    Attributes:
        values: Any of these, or None for a comparison.
        compare: Pairs of ``gt|ge|lt|le`` and a number; all must hold.
    """

    values: tuple[Scalar, ...] | None = None
    compare: tuple[tuple[str, float], ...] = ()

    def holds(self, value: Any) -> bool:
        """Returns whether the value fulfils it."""
        if self.values is not None:
            return any(same(value, item) for item in self.values)
        return is_number(value) and all(_holds(value, kind, bound) for kind, bound in self.compare)

    def numbers(self) -> list[float]:
        """Returns the numbers at which its truth can change."""
        numbers = [bound for _, bound in self.compare]
        return numbers + [item for item in self.values or () if is_number(item)]  # type: ignore[misc]

    def describe(self) -> str:
        """Describes it without the leaf: ``= adamw``, ``> 0``, ``in 1, 2``."""
        if self.values is None:
            return " and ".join(
                f"{COMPARISONS[kind]} {number(bound)}" for kind, bound in self.compare
            )
        words = [show(item).strip("'") for item in self.values]
        return f"= {words[0]}" if len(words) == 1 else f"in {', '.join(words)}"


When = Mapping[str, Condition]
"""Dotted path to condition; all must hold."""


def describe(when: When) -> str:
    """Describes conditions: ``training.head.optimizer = adamw and training.head.epochs > 0``."""
    return " and ".join(f"{path} {condition.describe()}" for path, condition in when.items())


def representatives(
    items: Iterable[Distribution | tuple[Scalar]], conditions: Sequence[Condition]
) -> list[Scalar]:
    """Selects values of a leaf that cover every case of the conditions.

    Args:
        items: Possible values: distributions, and constants as 1-tuples.
        conditions: All conditions that will be evaluated.
    """
    found: list[Scalar] = []
    for item in items:
        if isinstance(item, tuple):
            found.extend(item)
        elif isinstance(item, Categorical):
            found.extend(item.choices)
        else:
            found.extend(_of_range(item, conditions))
    return found


def _of_range(item: Integer | Float, conditions: Sequence[Condition]) -> list[Scalar]:
    candidates: list[float] = [item.low, item.high]
    for bound in [at for condition in conditions for at in condition.numbers()]:
        if isinstance(item, Integer) or item.step is not None:
            step = item.step or 1
            candidates += [item.clip(bound + k * step) for k in (-1, 0, 1)]
        else:
            candidates += [bound, math.nextafter(bound, -math.inf), math.nextafter(bound, math.inf)]
    # One point between every two thresholds.
    inside = sorted({value for value in candidates if item.contains(value)})
    middles = [item.clip((low + high) / 2) for low, high in pairwise(inside)]
    return [*inside, *middles]


def _holds(value: float, kind: str, bound: float) -> bool:
    if kind == "gt":
        return value > bound
    if kind == "ge":
        return value >= bound
    if kind == "lt":
        return value < bound
    return value <= bound
