"""What a command says that was interrupted and can be continued."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsfl_tune.cli._base import INTERRUPTED

if TYPE_CHECKING:
    from gsfl_tune.activity.display import Display


def interrupted(display: Display, begun: Path, kept: str, command: str) -> int:
    """Says how to continue; call it where a `KeyboardInterrupt` is handled.

    Args:
        display: Where it is said.
        begun: A file that is there as soon as something can be continued.
        kept: What is not lost, such as ``finished epochs``.
        command: Continues it.

    Returns:
        The exit code.

    Raises:
        KeyboardInterrupt: Again, when nothing was begun.
    """
    if not begun.exists():
        raise KeyboardInterrupt
    display.say(f"interrupted; {kept} are kept. Continue with:\n  {command}")
    return INTERRUPTED


def resuming(
    words: Iterable[object],
    given: Mapping[str, Any],
    *,
    flags: Mapping[str, bool] | None = None,
    lists: Mapping[str, Iterable[str]] | None = None,
) -> str:
    """Returns the command that continues an interrupted one.

    Args:
        words: Command and positional arguments, behind ``gsfl-tune``.
        given: Options with their values; None for one that was not given.
        flags: Options without a value, and whether they were given.
        lists: Options that may be given several times.
    """
    every = ["gsfl-tune", *map(str, words)]
    for option, value in given.items():
        every += [] if value is None else [option, str(value)]
    for option, values in (lists or {}).items():
        for value in values:
            every += [option, value]
    every += [option for option, wanted in (flags or {}).items() if wanted]
    return shlex.join([*every, "--resume"])
