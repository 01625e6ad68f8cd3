"""Class names of a data set among those of a bundle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gsfl_tune.data.sources._names import spelt
from gsfl_tune.experiment.errors import UserError


def match_classes(
    known: Sequence[str], names: Sequence[str], labels: np.ndarray | None = None
) -> np.ndarray:
    """Returns the positions (K,) of names among the classes of a bundle.

    Args:
        known: Classes of the bundle.
        names: K names.
        labels: (N,) labels of images, for the message.

    Raises:
        UserError: If names are unknown to the bundle; lists them and the share of images that
            could not be right.
    """
    position = {name: index for index, name in enumerate(known)}
    names = spelt(names, known)
    unknown = [name for name in names if name not in position]
    if unknown:
        text = (
            f"{len(unknown)} of {len(names)} classes are unknown to the bundle: "
            f"{_some(unknown)}. It knows {_some(known)}"
        )
        if labels is not None and len(labels):
            theirs = [number for number, name in enumerate(names) if name not in position]
            count = int(np.isin(labels, theirs).sum())
            share = f"{count} of {len(labels)} images ({count / len(labels):.1%})"
            text += f". {share} could not be right: leave them out, or use the same class names"
        raise UserError(text)
    return np.array([position[name] for name in names], dtype=np.int64)


def _some(names: Sequence[str], limit: int = 8) -> str:
    shown = ", ".join(names[:limit])
    return f"{shown}, ... ({len(names)} in total)" if len(names) > limit else shown
