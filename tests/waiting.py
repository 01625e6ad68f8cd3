"""Waits for conditions: the only place of the tests that polls."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

Found = TypeVar("Found")


def wait_until(
    condition: Callable[[], Found],
    what: str,
    *,
    timeout: float = 60.0,
    every: float = 0.02,
    process: subprocess.Popen[Any] | None = None,
    output: Callable[[], str] | None = None,
) -> Found:
    """Waits until a condition is true.

    Args:
        condition: Asked again and again.
        what: Names the condition in messages: ``the server answers``.
        timeout: Seconds; against a hang alone, so longer than a busy machine needs.
        every: Seconds between two questions.
        process: Has to run until then. Its end fails the wait at once.
        output: Returns what `process` or others printed, for messages; default: what is left in
            the pipe of a process that has ended.

    Returns:
        The first true value of the condition.

    Raises:
        AssertionError: When it does not happen.
    """
    deadline = time.monotonic() + timeout
    while True:
        # Asked before the condition: a process may make it true and end.
        code = None if process is None else process.poll()
        if found := condition():
            return found
        if code is not None:
            assert process is not None
            if output is None and process.stdout is not None:
                output = _rest(process)
            reason = f"the process ended with {code} before"
        elif time.monotonic() > deadline:
            reason = f"it did not happen within {timeout:g} s"
        else:
            time.sleep(every)
            continue
        said = "" if output is None else f"\n{output()}"
        raise AssertionError(f"waited until {what}: {reason}{said}")


def listens(port: int) -> bool:
    """Returns whether something accepts connections at a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), 30).close()
    except OSError:
        return False
    return True


def _rest(process: subprocess.Popen[Any]) -> Callable[[], str]:
    return lambda: str(process.communicate()[0])
