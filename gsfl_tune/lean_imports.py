"""Imports timm and torchvision without PyTorch's compiler, which no command needs at its start.

torchvision 0.29.1 and timm 1.0.31 import ``torch._dynamo`` as they are imported (for the name of
one function in ``torchvision.ops.roi_align``, and to mark functions that are not to be compiled).
With it come sympy and triton: a quarter of the time that ``gsfl-tune check`` takes. timm also
imports wandb where it is installed. This module defers all of them: the compiler is imported when
something of it is used, and everything behaves as before. Optimisers of PyTorch use it in their
first step, so a training imports it after all; commands that train nothing do without.

Import this module before timm or torchvision. Nothing is changed where the compiler is loaded
already.
"""

from __future__ import annotations

import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

_COMPILER = "torch._dynamo"
_UTILITIES = "torch._dynamo.utils"


class _Deferred(types.ModuleType):
    """Stands for a module of the compiler until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


def _real(name: str) -> types.ModuleType:
    """Imports a module of the compiler in place of what stands for it."""
    for each in (_COMPILER, _UTILITIES):
        if isinstance(sys.modules.get(each), _Deferred):
            del sys.modules[each]
    return importlib.import_module(name)


def _is_compile_supported(device_type: Any) -> Any:
    return _real(_UTILITIES).is_compile_supported(device_type)


def not_compiled(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """Hides a function from the compiler, as `torch.compiler.disable` does, without importing it.

    Args:
        fn: The function. What is no function is given to `torch.compiler.disable`.
        recursive: Whether what the function calls is hidden too.
        reason: Why, for messages of the compiler.
    """
    # Older versions of PyTorch take no reason.
    because = {} if reason is None else {"reason": reason}
    if not isinstance(fn, types.FunctionType):
        return _real(_COMPILER).disable(fn, recursive, **because)
    hidden: list[Callable[..., Any]] = []

    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        if not loaded():
            return fn(*args, **kwargs)
        if not hidden:
            hidden.append(_real(_COMPILER).disable(fn, recursive, **because))
        return hidden[0](*args, **kwargs)

    inner._torchdynamo_disable = True  # type: ignore[attr-defined]
    return inner


def loaded() -> bool:
    """Returns whether the compiler is imported: nothing compiles without it."""
    found = sys.modules.get(_COMPILER)
    return found is not None and not isinstance(found, _Deferred)


@contextmanager
def _without_compiler() -> Iterator[None]:
    compiler, utilities = _Deferred(_COMPILER), _Deferred(_UTILITIES)
    # Its other modules can be imported as always.
    compiler.__path__ = [str(Path(torch.__file__).parent / "_dynamo")]
    compiler.utils = utilities  # type: ignore[attr-defined]
    utilities.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    disable = torch.compiler.disable
    sys.modules.update({_COMPILER: compiler, _UTILITIES: utilities})
    torch.compiler.disable = not_compiled
    try:
        yield
    finally:
        torch.compiler.disable = disable
        for each in (_COMPILER, _UTILITIES):
            if isinstance(sys.modules.get(each), _Deferred):
                del sys.modules[each]


@contextmanager
def _without(package: str) -> Iterator[None]:
    """Makes an optional package look as if it were not installed, unless it is imported already."""
    hides = package not in sys.modules
    if hides:
        sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hides:
            del sys.modules[package]


if not loaded():
    with _without_compiler(), _without("wandb"):
        import timm  # noqa: F401
        import torchvision.ops
        import torchvision.tv_tensors  # noqa: F401
