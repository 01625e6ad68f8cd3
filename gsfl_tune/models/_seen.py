"""What enters a module of a backbone during a pass, for each thread that runs one."""

from __future__ import annotations

import threading
from typing import Any, Self

import torch
from torch import Tensor, nn


class Seen:
    """Keeps what enters a module during a pass, for each thread that runs one.

    Fast copies of a backbone run parts of a batch in threads of their own.
    """

    def __init__(self) -> None:
        self._inputs: dict[int, Tensor] = {}

    def enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Keeps the input of a module: a forward pre-hook."""
        self._inputs[_thread()] = inputs[0]

    def take(self) -> Tensor | None:
        """Returns what has entered the module since the last time, once; None if nothing has."""
        return self._inputs.pop(_thread(), None)

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        # A copy has seen nothing yet.
        return type(self), ()


class SeenWhereAsked(Seen):
    """Keeps what enters a module in passes that ask for it, and nothing in others."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: set[int] = set()

    def ask(self) -> None:
        """Begins: what enters the module is kept."""
        self._asked.add(_thread())

    def enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Keeps the input of a module: a forward pre-hook."""
        if _thread() in self._asked:
            super().enter(module, inputs)

    def end(self) -> None:
        """Ends: nothing is kept."""
        self._asked.discard(_thread())
        self.take()


def _thread() -> int:
    # A compiler cannot ask, and runs one pass at a time.
    return 0 if torch.compiler.is_compiling() else threading.get_ident()
