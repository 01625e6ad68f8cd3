"""Checks of what public functions are called with: what was found and what is allowed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def path_of(value: Any, name: str) -> Path:
    """Returns a path given as text or as a path.

    Args:
        value: The argument.
        name: Function and argument, for the error: ``read_results: path``.

    Raises:
        TypeError: If it is neither.
        ValueError: If it holds a null character, which no name of a file does.
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}: found {shown(value)}, allowed a path as text or Path")
    path = os.fspath(value)
    if not isinstance(path, str):
        raise TypeError(f"{name}: found {shown(value)}, allowed a path as text or Path")
    if "\0" in path:
        raise ValueError(f"{name}: found {path!r}, allowed the name of a file or folder")
    return Path(path)


def instance(kind: type | tuple[type, ...], value: Any, name: str, allowed: str) -> None:
    """Checks that an argument is of a class, or of one of some classes.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name}: found {shown(value)}, allowed {allowed}")


def whole(value: Any, name: str, least: int = 1) -> int:
    """Returns a whole number of at least `least`.

    Raises:
        TypeError: If it is not a whole number.
        ValueError: If it is less.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: found {shown(value)}, allowed a whole number from {least} on")
    if int(value) < least:
        raise ValueError(f"{name}: found {value}, allowed a whole number from {least} on")
    return int(value)


def one_of(value: Any, name: str, choices: Sequence[Any]) -> Any:
    """Returns one of some values.

    Raises:
        TypeError: If it is of another kind than all of them.
        ValueError: If it is none of them.
    """
    if value in list(choices):
        return value
    allowed = ", ".join(map(repr, choices))
    kind = ValueError if any(type(value) is type(each) for each in choices) else TypeError
    raise kind(f"{name}: found {shown(value)}, allowed {allowed}")


def texts(value: Any, name: str, allowed: str) -> list[str]:
    """Returns a list of texts; a single text is not one.

    Raises:
        TypeError: If it is something else.
    """
    return several(str, value, name, allowed)


def several(kind: type, value: Any, name: str, allowed: str) -> list[Any]:
    """Returns a list of objects of a class.

    Raises:
        TypeError: If it is something else.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: found {shown(value)}, allowed {allowed}")
    listed = list(value)
    for each in listed:
        if not isinstance(each, kind):
            raise TypeError(f"{name}: found {shown(each)} in the list, allowed {allowed}")
    return listed


def pixels(value: Any, name: str, shape: tuple[int, ...], why: str) -> None:
    """Checks that an argument is an array of uint8 of one shape.

    Raises:
        TypeError: If it is no array.
        ValueError: If it is another array.
    """
    allowed = f"allowed {shape} uint8, {why}"
    if not hasattr(value, "dtype"):
        raise TypeError(f"{name}: found {shown(value)}, {allowed}")
    if value.shape != shape or str(value.dtype) != "uint8":
        raise ValueError(f"{name}: found {value.shape} {value.dtype}, {allowed}")


def call(value: Any, name: str, allowed: str) -> None:
    """Checks that an argument can be called.

    Raises:
        TypeError: If it cannot.
    """
    if not callable(value):
        raise TypeError(f"{name}: found {shown(value)}, allowed {allowed}")


def shown(value: Any, most: int = 60) -> str:
    """Formats what was found, with its class, in a line: ``3 (int)``."""
    if value is None:
        return "None"
    text = repr(value).replace("\n", " ")
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    kind = type(value).__name__
    return f"{text} ({kind})" if not text.startswith(f"{kind}(") else text
