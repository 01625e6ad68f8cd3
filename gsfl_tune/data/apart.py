"""Units of images that a given test or validation part keeps to itself, besides its copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from gsfl_tune.data.grouping import Grouping, together
from gsfl_tune.data.looks import Looks
from gsfl_tune.data.sources import Sample
from gsfl_tune.data.splits import strays
from gsfl_tune.data.units import bursts, by_folder, by_group, by_time
from gsfl_tune.experiment.data_config import SplitConfig
from gsfl_tune.experiment.errors import UserError

# What a unit of ``data.split.by`` is called. Clusters of similar photographs are not among them:
# they are made for the images that are divided, and not of given parts.
_UNITS = {"group": "group", "folder": "folder", "time": "burst"}
BOTH = {"validation", "test"}


def unit_of(samples: Sequence[Sample], config: SplitConfig) -> str | None:
    """Returns the kind of unit that is known for certain: a key of `_UNITS`, or None.

    With ``auto`` these are groups that the source tells; bursts are a guess.
    """
    if config.by == "auto":
        return "group" if any(sample.group is not None for sample in samples) else None
    return config.by if config.by in _UNITS else None


def kept_apart(
    samples: Sequence[Sample], looks: Looks, copies: np.ndarray, config: SplitConfig
) -> Grouping | None:
    """Finds units that straddle no parts, and says what is left out because of given parts.

    Args:
        samples: N images.
        looks: Looks of the same images.
        copies: (N,) equal numbers for copies.
        config: The section ``data.split``.

    Returns:
        None if nothing but copies is known to belong together.

    Raises:
        UserError: If the images lack the information that ``by`` needs, and a part is to be
            divided. Where both parts are given, a notice says so instead.
    """
    by = unit_of(samples, config)
    if by is None:
        return None
    try:
        units = by_time(samples, looks) if by == "time" else _listed_units(samples, by)
    except UserError as error:
        if not {sample.part for sample in samples} >= BOTH:
            raise
        why = f"{error}; the source gives both parts, and they stay as they are"
        return Grouping(copies, np.arange(len(samples)), [why])
    bound = together(copies, units)
    told = _left_out(samples, copies, bound, units, _UNITS[by])
    return Grouping(copies, units, [] if told is None else [told], bound=bound)


def told_by_listing(samples: Sequence[Sample], config: SplitConfig) -> list[str]:
    """Says what groups or folders leave out because of given parts, without reading images.

    Args:
        samples: All images.
        config: The section ``data.split``.
    """
    by = unit_of(samples, config)
    if by not in ("group", "folder"):
        return []
    try:
        units = _listed_units(samples, by)
    except UserError as error:
        return [str(error)]
    told = _left_out(samples, np.arange(len(samples)), units, units, _UNITS[by])
    return [] if told is None else [told]


def straddling_bursts(samples: Sequence[Sample], units: np.ndarray) -> str | None:
    """Says how many images are of a burst that a given part has too; None if there is none.

    Args:
        samples: N images.
        units: (N,) their bursts.
    """
    out = strays([sample.part for sample in samples], units.tolist())
    if not any(out):
        return None
    count = sum(out)
    return (
        f"{count:,} image{' is' if count == 1 else 's are'} of a burst of photographs (EXIF times "
        "or camera numbers) of which a given test or validation part has others: results on that "
        "part may be too optimistic; data.split.by: time leaves them out"
    )


def burst_units(samples: Sequence[Sample], looks: Looks, copies: np.ndarray) -> np.ndarray | None:
    """Returns the (N,) bursts where at least half of the images tell theirs, else None."""
    units, count = bursts(samples, looks)
    several = len(np.unique(units)) < len(np.unique(copies))
    return units if count >= 0.5 * len(samples) and several else None


def _listed_units(samples: Sequence[Sample], by: str) -> np.ndarray:
    return by_group(samples) if by == "group" else by_folder(samples)


def _left_out(
    samples: Sequence[Sample],
    copies: np.ndarray,
    bound: np.ndarray,
    units: np.ndarray,
    kind: str,
) -> str | None:
    parts = [sample.part for sample in samples]
    copied = strays(parts, copies.tolist())
    rows = [row for row, out in enumerate(strays(parts, bound.tolist())) if out and not copied[row]]
    if not rows:
        return None
    groups = len(np.unique(units[rows]))
    of = Counter("validation" if parts[row] == "validation" else "training" for row in rows)
    counts = ", ".join(f"{of[part]:,} {part}" for part in ("training", "validation") if of[part])
    return (
        f"{len(rows):,} image{'s' if len(rows) > 1 else ''} ({counts}) of {groups:,} {kind}"
        f"{'s' if groups > 1 else ''} {'are' if len(rows) > 1 else 'is'} left out, as a given test "
        f"or validation part has others of the same {kind}; data.split.by: image keeps them"
    )
