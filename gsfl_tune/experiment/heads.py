"""The heads: what people call them, what they need, and where the code of their loss terms is.

A head is a class in ``models/heads.py`` and a row here. Whatever treats heads differently asks the
row or the class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

HeadKind = Literal["gsfl", "plain", "linear", "fsdg"]

CONTROL: HeadKind = "plain"
"""The head that shows what another one is worth."""


@dataclass(frozen=True)
class HeadSpec:
    """Describes a head.

    Attributes:
        title: What people call a model with it.
        encodes: Whether it has an encoder, with a latent size and dropout.
        grouped: Whether it needs groups of the classes.
        shared: Whether it has a shared part, which terms of the loss read.
        section: The section of ``loss`` that is for this head alone; empty for none.
        terms: Module and function of its own terms; empty for none. It takes the section ``loss``
            as a mapping, and the feature scale.
        parameters: Module and function that counts the parameters of these terms, from D, H and the
            number of groups; empty if they have none.
        weights: What a model card says of these terms: words, and the leaf of ``loss``.
        tag: Tag on a hub of models; empty for none.
    """

    title: str
    encodes: bool = True
    grouped: bool = False
    shared: bool = False
    section: str = ""
    terms: str = ""
    parameters: str = ""
    weights: tuple[tuple[str, str], ...] = ()
    tag: str = ""


HEADS: Mapping[str, HeadSpec] = {
    "gsfl": HeadSpec(
        "GSFL-Net",
        grouped=True,
        shared=True,
        terms="gsfl_tune.losses.gsfl:head_terms",
        weights=(
            ("reconstruction", "reconstruction"),
            ("class centre", "class_center"),
            ("shared centre", "shared_center"),
            ("centre rate", "center_rate"),
        ),
        tag="gsfl-net",
    ),
    "plain": HeadSpec("plain classifier"),
    "linear": HeadSpec("linear classifier", encodes=False),
    "fsdg": HeadSpec(
        "classifier of common and specific parts (FSDG)",
        grouped=True,
        section="fsdg",
        terms="gsfl_tune.losses.fsdg:head_terms",
        parameters="gsfl_tune.losses.fsdg:count_parameters",
        weights=tuple(
            (name, f"fsdg.{name}")
            for name in ("decorrelation", "consistency", "specificity", "calibration")
        ),
    ),
}

GROUPED_HEADS = tuple(name for name, head in HEADS.items() if head.grouped)
"""Heads that need groups of the classes."""

SHARED_HEADS = tuple(name for name, head in HEADS.items() if head.shared)
"""Heads with a shared part."""

ENCODING_HEADS = tuple(name for name, head in HEADS.items() if head.encodes)
"""Heads with an encoder."""
