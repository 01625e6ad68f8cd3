"""Terms of the loss that installed packages add."""

from __future__ import annotations

from gsfl_tune.losses._base import LossTerm
from gsfl_tune.plugins import PluginError, make, plugins


def added_term(name: str) -> LossTerm:
    """Makes a term that a package adds.

    Args:
        name: Name of its entry point.

    Raises:
        PluginError: If it cannot be made.
    """
    term: LossTerm = make("loss_term", name, LossTerm, made="without arguments")
    if "_parameters" not in vars(term):
        raise PluginError(
            f"{plugins('loss_term')[name]}: its __init__ does not call super().__init__()"
        )
    return term


def term_problem(name: str) -> str | None:
    """Returns what is wrong with a term, or None."""
    try:
        _ = added_term(name)
    except PluginError as error:
        return str(error)
    return None
