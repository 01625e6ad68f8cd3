"""HTTP server for a bundle: images in, classes out, one process, requests batched together.

It needs the extra ``serve``; nothing here is imported before `serve` is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsfl_tune.serve.limits import Limits
    from gsfl_tune.serve.server import serve

__all__ = ["Limits", "serve"]

_HOMES = {"Limits": "limits", "serve": "server"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"gsfl_tune.serve.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
