"""Names with braces for several files: ``train-{000000..000003}.tar``, ``{train,val}.tar``."""

from __future__ import annotations

import re

from gsfl_tune.experiment.errors import UserError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)(?:\.\.(\d+))?")
# A larger count is a typing error, not a million shards.
_MOST = 100_000


def expand_braces(text: str) -> list[str]:
    """Lists the names that a name with braces stands for, as a shell does.

    Args:
        text: A path or URL. ``{A..B}`` are the integers from A to B (``{A..B..STEP}`` in steps),
            padded to the longer number if one begins with 0; ``{x,y}`` are the words. Other
            braces are kept.

    Returns:
        The names in order; ``text`` itself where it has no such braces.

    Raises:
        UserError: For more than 100,000 names.
    """
    match = next((each for each in _BRACES.finditer(text) if _words(each[1])), None)
    if match is None:
        return [text]
    names: list[str] = []
    for word in _words(match[1]):
        names += expand_braces(text[: match.start()] + word + text[match.end() :])
        if len(names) > _MOST:
            raise UserError(f"{text}: stands for more than {_MOST:,} names")
    return names


def _words(inside: str) -> list[str]:
    """Expands the inside of braces; returns nothing where they are plain braces."""
    match = _RANGE.fullmatch(inside)
    if match is None:
        return inside.split(",") if "," in inside else []
    first, last = int(match[1]), int(match[2])
    step = max(1, int(match[3] or 1))
    count = abs(last - first) // step + 1
    if count > _MOST:
        raise UserError(f"{{{inside}}}: stands for {count:,} names, allowed {_MOST:,}")
    padded = any(len(end) > 1 and end.startswith("0") for end in (match[1], match[2]))
    width = max(len(match[1]), len(match[2])) if padded else 0
    sign = 1 if last >= first else -1
    return [f"{first + sign * step * index:0{width}d}" for index in range(count)]
