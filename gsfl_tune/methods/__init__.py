"""Methods: which passes a training step takes, one file each."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gsfl_tune.experiment.config import TrainingConfig
from gsfl_tune.experiment.methods import METHODS
from gsfl_tune.methods._base import STREAM, LossOf, Method, Passes, PoolOf, single_pass
from gsfl_tune.plugins import PluginError, make, plugin

__all__ = [
    "STREAM",
    "LossOf",
    "Method",
    "Passes",
    "PoolOf",
    "create_method",
    "method_class",
    "method_problem",
    "single_pass",
]


def method_class(name: str) -> type[Method]:
    """Finds the class of a method.

    Raises:
        PluginError: If an installed package adds it, and it cannot be loaded.
    """
    if name in METHODS:
        module, _, kind = METHODS[name].partition(":")
        found: type[Method] = getattr(import_module(module), kind)
        return found
    found = plugin("method", name).load_class(Method)
    return found


def create_method(config: TrainingConfig) -> Method:
    """Makes the method that ``training.method`` names.

    Raises:
        PluginError: If one of a package cannot be had.
    """
    if config.method not in METHODS:
        method: Method = make("method", config.method, Method, made="without arguments")
        return method
    settings: dict[str, Any] = {}
    if section := getattr(config, config.method, None):
        settings = section.model_dump()
    return method_class(config.method)(**settings)


def method_problem(name: str) -> str | None:
    """Says what is wrong with a method, or None."""
    try:
        _ = make("method", name, Method, made="without arguments")
    except PluginError as error:
        return str(error)
    return None
