"""Terms of the loss that installed packages add."""

from __future__ import annotations

from gsfl_tune.losses._base import LossTerm
from gsfl_tune.plugins import PluginError, plugins


def added_term(name: str) -> LossTerm:
    """Makes a term that a package adds.

    Args:
        name: Of its entry point.

    Raises:
        PluginError: If it cannot be had.
    """
    added = plugins("loss_term").get(name)
    if added is None:
        raise PluginError(f"no installed package adds the loss term {name!r}")
    kind = added.load_class(LossTerm)
    try:
        term: LossTerm = kind()
    except TypeError as error:
        raise PluginError(f"{added} cannot be made without arguments ({error})") from error
    if "_parameters" not in vars(term):
        raise PluginError(f"{added}: its __init__ does not call super().__init__()")
    return term


def term_problem(name: str) -> str | None:
    """Says what is wrong with a term, or None."""
    try:
        _ = added_term(name)
    except PluginError as error:
        return str(error)
    return None
