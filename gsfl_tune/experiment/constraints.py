"""Constraints of a search, such as ``latency_ms < 20``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gsfl_tune.experiment.metrics import MEASURED, METRICS

_FORM = re.compile(r"\s*(?P<key>[\w/]+)\s*(?P<sign><=|>=|<|>)\s*(?P<bound>\S+)\s*")
# A value exactly at the bound of `<` or `>` does not hold.
_AT_THE_BOUND = 1e-12


@dataclass(frozen=True)
class Constraint:
    """Describes what a trial must keep to win.

    Attributes:
        key: Key of the number: a measure of the model, or a metric of the validation images.
        sign: ``<``, ``<=``, ``>`` or ``>=``.
        bound: The bound.
    """

    key: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.key} {self.sign} {self.bound:g}"

    def violation(self, value: float) -> float:
        """Returns how far a value is from the bound, relative to it; above 0 where it fails.

        Violations of several constraints, of different units, can be added up.
        """
        over = value - self.bound if self.sign.startswith("<") else self.bound - value
        found = over / (abs(self.bound) or 1.0)
        return max(found, _AT_THE_BOUND) if found == 0 and len(self.sign) == 1 else found


def parse_constraint(text: str) -> Constraint:
    """Reads a constraint.

    Raises:
        ValueError: With what was found and what is allowed.
    """
    allowed = f"{', '.join(names())}"
    form = _FORM.fullmatch(text)
    if form is None:
        raise ValueError(f"found {text!r}, allowed NAME < NUMBER (or <=, >, >=), NAME: {allowed}")
    if form["key"] not in names():
        raise ValueError(f"found {form['key']!r} in {text!r}, allowed {allowed}")
    try:
        bound = float(form["bound"])
    except ValueError:
        bound = float("nan")
    if not abs(bound) < float("inf"):
        raise ValueError(f"found {form['bound']!r} in {text!r}, allowed a number")
    return Constraint(form["key"], form["sign"], bound)


def names() -> tuple[str, ...]:
    """Returns the keys that a constraint may name."""
    return (*MEASURED, *METRICS)
