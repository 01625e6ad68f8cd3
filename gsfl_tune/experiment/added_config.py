"""Sections of the file with one key for each extension of installed packages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model

from gsfl_tune.experiment.loss_terms import LOSS_TERMS
from gsfl_tune.experiment.section import Fraction, NonNegative, Section
from gsfl_tune.plugins import Kind, plugins, reserve

# Before any section is made: a term of a package must not have the name of a built-in one.
reserve("loss_term", LOSS_TERMS)


def _section(name: str, doc: str, kind: Kind, value: Any, what: str) -> Any:
    """Makes a section with one key for each extension of a kind in installed packages."""
    fields: Any = {
        each: (value, Field(0.0, description=f"{what} of {plugin.package}."))
        for each, plugin in plugins(kind).items()
    }
    return create_model(name, __base__=Section, __module__=__name__, __doc__=doc, **fields)


if TYPE_CHECKING:

    class LossTermsConfig(Section):
        """Weights of loss terms that installed packages add; 0 leaves a term out."""

    class AugmentTransformsConfig(Section):
        """Strengths of transforms that installed packages add; 0 leaves one out."""

else:
    LossTermsConfig = _section(
        "LossTermsConfig",
        "Weights of loss terms that installed packages add; 0 leaves a term out.",
        "loss_term",
        NonNegative,
        "Weight of a term",
    )
    AugmentTransformsConfig = _section(
        "AugmentTransformsConfig",
        "Strengths of transforms that installed packages add; 0 leaves one out.",
        "transform",
        Fraction,
        "Strength of a transform",
    )
