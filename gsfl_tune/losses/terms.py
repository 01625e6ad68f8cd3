"""Further terms of the loss, which installed packages add."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from gsfl_tune.plugins import PluginError, plugins


@dataclass(frozen=True)
class Batch:
    """What a term of the loss sees of a batch of a GSFL head; float32, even under autocast.

    Attributes:
        features: (B, D) unit features f.
        discriminative: (B, H) discriminative parts d.
        shared: (B, H) shared parts s.
        reconstruction: (B, D) reconstructions of f.
        logits: (B, C) class scores.
        labels: (B,) classes.
        groups: (B,) groups of these classes.
        class_centers: (C, H) centres of all classes, without gradient.
        group_means: (K, H) means of the class centres of all groups.
    """

    features: Tensor
    discriminative: Tensor
    shared: Tensor
    reconstruction: Tensor
    logits: Tensor
    labels: Tensor
    groups: Tensor
    class_centers: Tensor
    group_means: Tensor


class LossTerm(ABC):
    """A further term of the GSFL loss; it is made without arguments, and keeps no state.

    It takes part where its weight, ``loss.terms.NAME``, is not 0, in trials with a GSFL head: the
    control stays what it is.
    """

    @abstractmethod
    def __call__(self, batch: Batch) -> Tensor:
        """The term before weighting: a scalar, averaged over the images of the batch."""


@dataclass(frozen=True)
class WeightedTerm:
    """A term with its name and its weight."""

    name: str
    weight: float
    term: LossTerm

    def __call__(self, batch: Batch) -> Tensor:
        """The term before weighting.

        Raises:
            PluginError: If it is no scalar.
        """
        value = self.term(batch)
        if not isinstance(value, Tensor) or value.ndim:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise PluginError(f"loss term {self.name} gave {found}, allowed is a scalar tensor")
        return value


def create_terms(weights: Mapping[str, float]) -> tuple[WeightedTerm, ...]:
    """The terms that have a weight.

    Args:
        weights: Weight by name, the section ``loss.terms``.

    Raises:
        PluginError: If one cannot be had.
    """
    return tuple(
        WeightedTerm(name, weight, _create(name)) for name, weight in weights.items() if weight
    )


def term_problem(name: str) -> str | None:
    """What is wrong with a term, or None."""
    try:
        _ = _create(name)
    except PluginError as error:
        return str(error)
    return None


def _create(name: str) -> LossTerm:
    added = plugins("loss_term").get(name)
    if added is None:
        raise PluginError(f"no installed package adds the loss term {name!r}")
    kind = added.load_class(LossTerm)
    try:
        term: LossTerm = kind()
    except TypeError as error:
        raise PluginError(f"{added} cannot be made without arguments ({error})") from error
    return term
