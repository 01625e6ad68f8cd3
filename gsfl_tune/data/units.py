"""Units that are held out together: the values of ``data.split.by``."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath

import numpy as np

from gsfl_tune.data.looks import Looks
from gsfl_tune.data.sources import Sample
from gsfl_tune.experiment.errors import UserError

# Largest gap in seconds between photographs of one camera in a burst.
_BURST_SECONDS = 60.0
# File names of cameras; the counter is the last number.
_CAMERA = re.compile(
    r"(?:_?(?:IMG|DSCN|DSCF|DSC|PXL|MVI|GOPR|DJI|SAM|HPIM|CIMG|IMGP|MG|P|PICT|frame))[-_]?\d*?"
    r"(\d{3,})$",
    re.IGNORECASE,
)
# Times in names of phones and screens: IMG_20240131_142359, PXL_20240131_142359123, 20240131142359.
_TIME = re.compile(
    r"(\D*?)((?:19|20)\d\d)[-_.]?(\d\d)[-_.]?(\d\d)[-_. T]?(?:at )?"
    r"(\d\d)[-_.:]?(\d\d)[-_.:]?(\d\d)(?:[-_.]?\d{3})?(?:\D.*)?"
)
# Any other name that ends with a counter: Milk_001.
_SERIES = re.compile(r".*[^\W\d_].*?[-_. ](\d{2,})$")
# Pieces of a series that is all of its class: one of them can be held out.
_PIECES = 5
# Smallest share of images with a known burst for which bursts are used.
_LEAST_TOLD = 0.5


def by_group(samples: Sequence[Sample]) -> np.ndarray:
    """Makes units from the column that ``data.group_column`` names.

    Raises:
        UserError: If the source has no such column, or all images are of one group.
    """
    groups = [sample.group for sample in samples]
    if all(group is None for group in groups):
        raise UserError(
            "data.split.by: found group, but the source says no group; data.group_column names the "
            "column"
        )
    # An image without a group is its own unit.
    found = _numbers([group if group is not None else (i,) for i, group in enumerate(groups)])
    if found.max() == 0:
        raise UserError(f"data.split.by: found group, but all images are of the group {groups[0]}")
    return found


def by_folder(samples: Sequence[Sample]) -> np.ndarray:
    """Makes units from the class and the folder of each image.

    Raises:
        UserError: If no class has several folders.
    """
    keys = [(each.label, str(PurePosixPath(each.path).parent)) for each in samples]
    if len(set(keys)) == len({label for label, _ in keys}):
        raise UserError(
            "data.split.by: found folder, but the images of every class lie in one folder; allowed "
            "where a class has several, one for each animal, place or day"
        )
    return _numbers(keys)


def by_time(samples: Sequence[Sample], looks: Looks) -> np.ndarray:
    """Makes units from class and burst: times of a camera within a minute, or a counter.

    Times are those of EXIF, or in names (``IMG_20240131_142359``). The counter is that of a camera,
    or of any series of names (``Milk_001``).

    Raises:
        UserError: If most images have neither.
    """
    found, told = bursts(samples, looks, any_name=True)
    if told < _LEAST_TOLD * len(samples):
        raise UserError(
            f"data.split.by: found time, but only {told:,} of {len(samples):,} images say when "
            "they were taken (EXIF), or have a name with a number (IMG_0123, Milk_001)"
        )
    return found


def bursts(
    samples: Sequence[Sample], looks: Looks, *, any_name: bool = False
) -> tuple[np.ndarray, int]:
    """Returns the burst of every image, and how many images have one; others are single.

    Neighbouring numbers in names are a burst. Where it would be all images of a class, it is cut
    into pieces of neighbours, so that the class can be held out.

    Args:
        samples: N images.
        looks: Looks of the same images.
        any_name: Whether any name may have such a number, not only those of cameras. Collections
            are often numbered without an order, so this is for who asks for it.
    """
    keys: list[Hashable] = [(position,) for position in range(len(samples))]
    series: dict[tuple[Hashable, ...], list[tuple[float, int]]] = {}
    for position, sample in enumerate(samples):
        taken = float(looks.taken[position])
        if taken == taken:
            row: tuple[Hashable, ...] = ("time", sample.label, int(looks.cameras[position]))
            series.setdefault(row, []).append((taken, position))
            continue
        folder, name = os.path.split(_file(sample.path))
        stem = os.path.splitext(name)[0]
        known = _time_in(stem)
        if known is not None:
            series.setdefault(("named", sample.label, known[0]), []).append((known[1], position))
            continue
        match = _CAMERA.fullmatch(stem) or (_SERIES.fullmatch(stem) if any_name else None)
        if match:
            row = ("name", sample.label, folder, stem[: match.start(1)])
            # Neighbouring numbers are one burst, whatever their times.
            series.setdefault(row, []).append((_BURST_SECONDS * int(match.group(1)), position))
    told = 0
    sizes = Counter(sample.label for sample in samples)
    for row, members in series.items():
        members.sort()
        told += len(members)
        burst, last = 0, -np.inf
        for moment, position in members:
            burst += moment - last > _BURST_SECONDS
            last = moment
            keys[position] = (*row, burst)
        if row[0] == "name" and burst == 1 and len(members) == sizes[samples[members[0][1]].label]:
            pieces = max(1, min(_PIECES, len(members) // 2))
            for place, (_, position) in enumerate(members):
                keys[position] = (*row, place * pieces // len(members))
    return _numbers(keys), told


def _time_in(stem: str) -> tuple[str, float] | None:
    """Returns what stands before the time in a name, and the time in seconds; None without one."""
    match = _TIME.fullmatch(stem)
    if match is None:
        return None
    try:
        taken = datetime(*map(int, match.groups()[1:]), tzinfo=UTC)  # type: ignore[arg-type,misc]
    except ValueError:  # other digits
        return None
    return match[1], taken.timestamp()


def crowded(units: np.ndarray, labels: np.ndarray) -> list[int]:
    """Returns classes whose images are all in one unit, so that none can be held out."""
    of_class: dict[int, set[int]] = {}
    for unit, label in zip(units.tolist(), labels.tolist(), strict=True):
        of_class.setdefault(label, set()).add(unit)
    sizes = Counter(labels.tolist())
    return sorted(label for label, found in of_class.items() if len(found) == 1 < sizes[label])


def _file(path: str) -> str:
    """Returns the image's name in ``FILE.parquet#12 (NAME)``, else the path itself."""
    match = re.fullmatch(r".*#\d+ \((.*)\)", path)
    return match.group(1) if match else path


def _numbers(keys: Sequence[Hashable]) -> np.ndarray:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
