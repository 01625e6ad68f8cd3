"""Licences of pretrained weights, as far as somebody states them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import timm

from gsfl_tune.hub_names import HubPlace, hub_place
from gsfl_tune.models._added import register
from gsfl_tune.models.hub import look_up
from gsfl_tune.models.streams import Weights, stream_weights
from gsfl_tune.models.weights import WeightsError, architecture, package_of
from gsfl_tune.plugins import PluginError

UNKNOWN = "unknown"
# Between licences that all bind.
_AND = " and "


class Licence(NamedTuple):
    """Holds what is known about the licence of a backbone's pretrained weights.

    Attributes:
        name: Its identifier in small letters, such as ``apache-2.0``, several with ``and``;
            ``unknown`` where none is stated; None where there are no pretrained weights, or they
            are a person's own file.
        source: Who states it, or why nobody does.
    """

    name: str | None
    source: str

    def __str__(self) -> str:
        return self.source if self.name is None else f"{self.name} ({self.source})"


def licence(backbone: str, weights: str) -> Licence:
    """Returns the licence of pretrained weights, which are not downloaded.

    Of weights on the hub, the model card and ``config.json`` are read.

    Args:
        backbone: Name of a timm model, with or without a pretrained tag.
        weights: A value of ``model.weights``.
    """
    if weights == "none":
        return Licence(None, "no pretrained weights")
    if weights == "package":
        package = package_of(backbone)
        if package is None:
            return Licence(UNKNOWN, "no package holds such weights")
        return Licence(package.licence, f"package {package.name}")
    if (place := hub_place(weights)) is not None:
        return _licence_on_hub(place)
    if weights != "imagenet":
        return Licence(None, f"that of {weights}, which only its owner knows")
    try:
        _ = register(architecture(backbone))
    except PluginError as error:
        return Licence(UNKNOWN, str(error))
    config = timm.get_pretrained_cfg(backbone)
    stated = None if config is None else config.license
    if not stated or stated.lower() == UNKNOWN:
        return Licence(UNKNOWN, "timm states none")
    return Licence(stated.lower(), "stated by timm")


def _licence_on_hub(place: HubPlace) -> Licence:
    try:
        found = look_up(place)
    except WeightsError as error:
        return Licence(UNKNOWN, str(error))
    if found.unread:
        return Licence(UNKNOWN, found.unread)
    if not found.stated:
        return Licence(UNKNOWN, f"{place} states none")
    # Weights that were trained further have a card of their own: both licences bind.
    by_name = dict(reversed(found.stated))
    names = sorted(by_name)
    who = dict.fromkeys(by_name[each] for each in names)
    return Licence(_AND.join(names), f"stated by {_AND.join(who)}")


def licence_problem(backbone: str, weights: Weights, allowed: Sequence[str]) -> str | None:
    """Says that pretrained weights have none of the allowed licences, or returns None.

    Random weights need no licence, and that of a file is its owner's to know: both pass.

    Args:
        backbone: Name of a timm model, or those of two streams.
        weights: A value of ``model.weights``, or one for each stream.
        allowed: A value of ``model.licenses``.
    """
    known = {each.strip().lower() for each in allowed}
    for name, own in stream_weights(backbone, weights):
        found = licence(name, own)
        if found.name is None or found.name in known or known.issuperset(found.name.split(_AND)):
            continue
        return (
            f"found {name}, whose weights ({own}) have the licence {found}; allowed by "
            f"model.licenses: {', '.join(allowed) or 'none'}"
        )
    return None
