"""A line to a tracker that breaks at a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class Lost(Exception):
    """A request that failed."""


class Line:
    """Breaks at one call; the call may have had its effect all the same."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.broken_at: int | None = None
        self.too_late = False

    def through(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def sent(*arguments: Any, **options: Any) -> Any:
            self.calls.append(name)
            broken = len(self.calls) - 1 == self.broken_at
            if broken and not self.too_late:
                raise Lost(name)
            answer = call(*arguments, **options)
            if broken:
                raise Lost(name)
            return answer

        return sent

    def method(self, patch: pytest.MonkeyPatch, kind: type, name: str) -> None:
        """Sends a method of a class through the line."""
        call = getattr(kind, name)

        def method(own: Any, *arguments: Any, **options: Any) -> Any:
            return self.through(name, lambda: call(own, *arguments, **options))()

        patch.setattr(kind, name, method)

    @contextmanager
    def broken(self, at: int | None, *, too_late: bool) -> Iterator[None]:
        self.calls, self.broken_at, self.too_late = [], at, too_late
        yield
        self.broken_at = None
