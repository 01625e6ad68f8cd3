"""The distributions of parameters.

The names and meanings follow Optuna's distributions, without importing it: a `suggest` takes
anything that has ``suggest_categorical``, ``suggest_int`` and ``suggest_float``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from gsfl_tune.experiment.fields import MISSING, number, show

_MOST_STEPS = 10**9

Scalar = bool | int | float | str | None


class Suggests(Protocol):
    """Describes the part of an Optuna trial that a space needs."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...  # noqa: D102

    def suggest_int(  # noqa: D102
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int: ...

    def suggest_float(  # noqa: D102
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...


def same(one: Any, other: Any) -> bool:
    """Compares for equality without treating true as 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def is_number(value: Any) -> bool:
    """Returns whether it is an int or a float, but not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mark() -> Any:
    """Returns a field that does not count in comparisons: it tells who gave the default."""
    return field(default=False, init=False, compare=False, repr=False)


@dataclass(frozen=True)
class Categorical:
    """Draws one of a list of scalars.

    Attributes:
        chosen: Whether somebody gave the default; without one it is the first choice.

    Raises:
        ValueError: No choices, one of them twice, or a default that is not among them.
    """

    choices: tuple[Scalar, ...]
    default: Any = MISSING
    chosen: bool = _mark()

    def __post_init__(self) -> None:
        object.__setattr__(self, "chosen", self.default is not MISSING)
        object.__setattr__(self, "choices", tuple(self.choices))
        if not self.choices:
            raise ValueError("found no choices, allowed is at least one")
        for index, choice in enumerate(self.choices):
            if any(same(choice, earlier) for earlier in self.choices[:index]):
                raise ValueError(f"found the choice {show(choice)} twice")
        if self.default is MISSING:
            object.__setattr__(self, "default", self.choices[0])
        elif not self.contains(self.default):
            raise ValueError(
                f"found the default {show(self.default)}, allowed {_listed(self.choices)}"
            )

    def contains(self, value: Any) -> bool:
        """Returns whether it is one of the choices."""
        return any(same(value, choice) for choice in self.choices)

    def clip(self, value: Any) -> Scalar:
        """Returns the choice itself, the nearest number among the choices, else the default."""
        for choice in self.choices:
            if same(value, choice):
                return choice
        numbers = [choice for choice in self.choices if is_number(choice)]
        if is_number(value) and numbers:
            return min(numbers, key=lambda choice: abs(float(choice) - float(value)))  # type: ignore[arg-type]
        return self.default

    def describe(self) -> str:
        """Formats it for the table of ``check``."""
        return f"choice of {_listed(self.choices)}"

    def exact(self, value: Any) -> Any:
        """Returns the value itself."""
        return value

    def suggest(self, trial: Suggests, name: str) -> Any:
        """Asks the trial for a value."""
        return trial.suggest_categorical(name, list(self.choices))


@dataclass(frozen=True)
class Integer:
    """Draws an integer from low to high, both included.

    ``high`` is lowered to the last value that ``step`` reaches.

    Attributes:
        chosen: Whether somebody gave the default; without one it is the middle.

    Raises:
        ValueError: Reversed bounds, ``log`` with a low below 1 or with a step, a step below 1, or
            a default that is outside or off the steps.
    """

    low: int
    high: int
    log: bool = False
    step: int = 1
    default: Any = MISSING
    chosen: bool = _mark()

    def __post_init__(self) -> None:
        object.__setattr__(self, "chosen", self.default is not MISSING)
        _check_range(self.low, self.high, self.log, None if self.step == 1 else self.step)
        if self.log and self.low < 1:
            raise ValueError(f"found log with the lower bound {self.low}, allowed at least 1")
        high = self.low + (self.high - self.low) // self.step * self.step
        object.__setattr__(self, "high", high)
        if self.default is MISSING:
            middle = math.sqrt(self.low * high) if self.log else (self.low + high) / 2
            object.__setattr__(self, "default", self._snap(middle))
        elif not self.contains(self.default):
            raise ValueError(_bad_default(self.default, self.low, high, self.step))

    def contains(self, value: Any) -> bool:
        """Returns whether it is an integer in range and on a step."""
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and (value - self.low) % self.step == 0

    def clip(self, value: Any) -> int:
        """Returns the nearest allowed integer; the default if the value is not a number."""
        if not is_number(value) or math.isnan(value):
            return int(self.default)
        return self._snap(value)

    def _snap(self, value: float) -> int:
        value = min(max(value, self.low), self.high)
        return min(
            self.low + math.floor((value - self.low) / self.step + 0.5) * self.step, self.high
        )

    def describe(self) -> str:
        """Formats it for the table of ``check``."""
        step = self.step if self.step > 1 else None
        return f"int {self.low} to {self.high}{_suffix(self.log, step)}"

    def exact(self, value: Any) -> Any:
        """Returns the value itself."""
        return value

    def suggest(self, trial: Suggests, name: str) -> Any:
        """Asks the trial for a value."""
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)


@dataclass(frozen=True)
class Float:
    """Draws a number from low to high, both included.

    ``high`` is lowered to the last value that ``step`` reaches. A value on a step is the exact
    decimal in the file: three steps of 0.1 are 0.3, not 0.30000000000000004.

    Attributes:
        chosen: Whether somebody gave the default; without one it is the middle.

    Raises:
        ValueError: Reversed bounds, ``log`` with a low of 0 or less or with a step, a step of 0 or
            less, or a default that is outside or off the steps.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    default: Any = MISSING
    chosen: bool = _mark()

    def __post_init__(self) -> None:
        object.__setattr__(self, "chosen", self.default is not MISSING)
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))
        _check_range(self.low, self.high, self.log, self.step)
        if self.log and self.low <= 0:
            raise ValueError(f"found log with the lower bound {number(self.low)}, allowed above 0")
        if self.step is not None:
            object.__setattr__(self, "step", float(self.step))
            # Decimal, so that [0, 0.3] in steps of 0.1 ends at 0.3.
            low, high, step = (Decimal(str(item)) for item in (self.low, self.high, self.step))
            if (high - low) / step > _MOST_STEPS:
                raise ValueError(f"found the step {number(self.step)}, too small for the range")
            object.__setattr__(self, "high", float(low + (high - low) // step * step))
        if self.default is MISSING:
            middle = math.sqrt(self.low) * math.sqrt(self.high) if self.log else None
            middle = self.low + (self.high - self.low) / 2 if middle is None else middle
            object.__setattr__(self, "default", self._snap(middle))
        elif not self.contains(self.default):
            raise ValueError(_bad_default(self.default, self.low, self.high, self.step))
        else:
            object.__setattr__(self, "default", self.exact(float(self.default)))

    def contains(self, value: Any) -> bool:
        """Returns whether it is a number in range and on a step."""
        if not is_number(value) or not self.low <= value <= self.high:
            return False
        return self.step is None or abs(self._snap(value) - value) <= 1e-8 * self.step

    def clip(self, value: Any) -> float:
        """Returns the nearest allowed number; the default if the value is not a number."""
        if not is_number(value) or math.isnan(value):
            return float(self.default)
        return self._snap(value)

    def exact(self, value: Any) -> Any:
        """Returns the decimal of the step if floating point missed it slightly, else the value."""
        if self.step is None or not is_number(value):
            return value
        # Not `contains`: six steps of 0.1 are 0.6000000000000001, beyond an end of 0.6.
        exact = self._snap(value)
        return exact if abs(exact - value) <= 1e-8 * self.step else value

    def _snap(self, value: float) -> float:
        value = min(max(float(value), self.low), self.high)
        if self.step is None:
            return value
        steps = math.floor((value - self.low) / self.step + 0.5)
        exact = Decimal(str(self.low)) + steps * Decimal(str(self.step))
        return min(float(exact), self.high)

    def describe(self) -> str:
        """Formats it for the table of ``check``."""
        low, high = number(self.low), number(self.high)
        return f"float {low} to {high}{_suffix(self.log, self.step)}"

    def suggest(self, trial: Suggests, name: str) -> Any:
        """Asks the trial for a value."""
        return self.exact(
            trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)
        )


Distribution = Categorical | Integer | Float


def _listed(values: tuple[Scalar, ...]) -> str:
    return ", ".join("null" if value is None else show(value).strip("'") for value in values)


def _suffix(log: bool, step: float | None) -> str:
    return (", log" if log else "") + (f", step {number(step)}" if step is not None else "")


def _check_range(low: float, high: float, log: bool, step: float | None) -> None:
    if low > high:
        raise ValueError(
            f"found the bounds [{number(low)}, {number(high)}], allowed is the lower one first"
        )
    if step is not None and log:
        raise ValueError("found log and step together, allowed is one of them")
    if step is not None and step <= 0:
        raise ValueError(f"found the step {number(step)}, allowed above 0")


def _bad_default(default: Any, low: float, high: float, step: float | None) -> str:
    steps = f" in steps of {number(step)}" if step not in (None, 1) else ""
    return f"found the default {show(default)}, allowed {number(low)} to {number(high)}{steps}"
