"""Durations and sizes in the form that people write: ``20m``, ``50GB``."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {
    **{unit: 1000**power for power, unit in enumerate(("B", "kB", "MB", "GB", "TB"))},
    **{unit: 1024**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), start=1)},
}

# Above 0, in the common syntax of regular expressions and JSON schema.
_NUMBER = r"([0-9]*[1-9][0-9]*(\.[0-9]+)?|[0-9]+\.[0-9]*[1-9][0-9]*)"

Duration = (
    Annotated[
        str,
        Field(pattern=rf"^{_NUMBER} ?[smhd]$", description="a duration such as 90s, 20m, 6h or 2d"),
    ]
    | Annotated[float, Field(gt=0.0)]
)
"""``90s``, ``20m``, ``6h``, ``2d``, or a number of seconds."""

Size = (
    Annotated[
        str,
        Field(
            pattern=rf"^{_NUMBER} ?([kMGT]?B|[KMGT]iB)$",
            description="a size such as 500MB, 50GB or 2TiB",
        ),
    ]
    | Annotated[int, Field(gt=0)]
)
"""``500MB`` (millions), ``50GiB`` (powers of 1,024), or a number of bytes."""


def seconds(duration: str | float) -> float:
    """Returns the seconds of a `Duration`."""
    number, factor = _parse(duration, _SECONDS)
    return number * factor


def byte_count(size: str | float) -> int:
    """Returns the bytes of a `Size`."""
    number, factor = _parse(size, _BYTES)
    return int(number * factor)


def size_text(count: int) -> str:
    """Formats bytes as a `Size`, rounded: ``3.2GB``."""
    for unit in ("TB", "GB", "MB", "kB"):
        if count >= _BYTES[unit]:
            return f"{count / _BYTES[unit]:.3g}{unit}"
    return f"{count}B"


def decimal_size(count: float) -> str:
    """Formats bytes for people, in powers of 1,000: ``3.2 GB``, ``12 GB``."""
    for unit in ("TB", "GB", "MB", "kB"):
        # What would be rounded to 1000 of a unit is 1 of the next.
        if count >= _BYTES[unit] * 0.9995:
            value = count / _BYTES[unit]
            return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"
    return f"{count:.0f} B"


def megabytes(count: float) -> str:
    """Formats bytes for columns of a table, all in one unit: ``13.6 MB``."""
    return f"{count / _BYTES['MB']:.1f} MB"


def gibibytes(count: float) -> str:
    """Formats bytes for narrow columns: ``12G``, whole powers of 1,024."""
    return f"{count / _BYTES['GiB']:.0f}G"


def binary_size(count: int) -> str:
    """Formats bytes for people, in powers of 1,024: ``1.4 MiB``."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def duration_text(duration: str | float) -> str:
    """Returns a `Duration` as it was written; a plain number as seconds."""
    return duration if isinstance(duration, str) else f"{duration:g}s"


def time_text(seconds: float) -> str:
    """Formats seconds for people: ``45 s``, ``3:30 min``, ``12 min``, ``3:20 h``."""
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    tens = 10 * round(seconds / 10)
    if tens < 600 and tens % 60:
        return f"{tens // 60}:{tens % 60:02} min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60}:{minutes % 60:02} h"


def _parse(text: str | float, factors: dict[str, int]) -> tuple[float, int]:
    if not isinstance(text, str):
        return float(text), 1
    number, unit = re.fullmatch(r"([0-9.]+) ?([a-zA-Z]+)", text).groups()  # type: ignore[union-attr]
    return float(number), factors[unit]
