"""Phones write the time into names of files, which is left where EXIF has been removed."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from gsfl_tune.data import prepare
from gsfl_tune.data.units import _time_in
from tests.data.conftest import configure, save


@pytest.mark.parametrize("by", ["auto", "time"])
@pytest.mark.parametrize(
    "form",
    ["IMG_%Y%m%d_%H%M%S", "PXL_%Y%m%d_%H%M%S123", "IMG%Y%m%d%H%M%S", "%Y-%m-%d %H.%M.%S"],
)
def test_bursts_are_held_out_whole(tmp_path, cache, form, by):
    """The seconds of a burst are no neighbouring numbers, and pass the end of a minute."""
    root = tmp_path / "data"
    start = datetime(2024, 1, 31, 14, 23, 50)
    burst_of: dict[str, tuple[str, int]] = {}
    for label, name in enumerate("ab"):
        for burst in range(10):
            for number in range(3):
                taken = start + timedelta(minutes=15 * burst, seconds=7 * number)
                file = root / name / f"{taken.strftime(form)}.png"
                save(file, 1000 * label + 10 * burst + number)
                burst_of[str(file)] = name, burst
    dataset = prepare(configure("folder", root, split={"by": by}), cache_dir=cache)
    parts: dict[tuple[str, int], set[str]] = {}
    division = {"train": dataset.pool.paths, "test": dataset.test.paths}
    for part, paths in division.items():
        for path in paths:
            parts.setdefault(burst_of[path], set()).add(part)
    assert len(parts) == 20
    assert all(len(found) == 1 for found in parts.values())


@pytest.mark.parametrize(
    "name", ["IMG_0123", "Milk_001", "20240131", "IMG-20240131-WA0003", "IMG_20249931_142359", "12"]
)
def test_other_numbers_are_no_times(name):
    assert _time_in(name) is None


def test_times_of_two_apps_are_two_series():
    first, second = _time_in("IMG_20240131_142359"), _time_in("Screenshot_20240131-142359_Maps")
    assert first is not None
    assert second is not None
    assert first[1] == second[1]
    assert first[0] != second[0]
