"""The test whether a value lies at the end of its range."""

from __future__ import annotations

import math
from typing import Any, Literal

from gsfl_tune.experiment.distributions import Categorical, Distribution, Integer
from gsfl_tune.experiment.fields import leaves

# A value within this share of the range from an end may suggest a wider range.
_EDGE = 0.03


def range_end(name: str, drawn_from: Distribution, value: Any) -> Literal["", "lower", "upper"]:
    """Returns the end of its range where a value lies, if the range could be extended there.

    Args:
        name: Name of the parameter.
        drawn_from: Its distribution.
        value: The drawn value.
    """
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
    # A dropout below 0 is impossible, so it needs no hint.
    beyond = drawn_from.low - step if place <= _EDGE else drawn_from.high + step
    if drawn_from.log and beyond <= 0:
        beyond = 0.5 * drawn_from.low
    if leaf is not None and not leaf.accepts(beyond):
        return ""
    return "lower" if place <= _EDGE else "upper"
