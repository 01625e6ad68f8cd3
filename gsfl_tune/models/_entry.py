"""Modules that change what another module is called with."""

from __future__ import annotations

from typing import Any

from torch import nn


class EntryModule(nn.Module):
    """Changes the map that enters a module, without being a part of it."""

    def enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Changes what a module is called with: a forward pre-hook."""
        return (self(inputs[0]), *inputs[1:])
