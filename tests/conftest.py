"""What holds for the tests of every room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Ray runs its workers at niceness 15, so that they starve beside other test processes: searches of
# seconds took minutes, and their drivers polled all the while.
os.environ.setdefault("RAY_worker_niceness", "0")

# Files that take longest begin first (`--no-loadscope-reorder` keeps this order), so that no
# process is left with one of them when the others have nothing to do.
_LONG = [
    "test_pipeline.py",
    "test_submit.py",
    "test_pretrain.py",
    "test_convert.py",
    "test_site.py",
    "test_tuning.py",
    "test_image_methods.py",
    "test_distillation.py",
    "test_pretraining.py",
    "test_server.py",
    "test_pick.py",
    "test_adapt.py",
    "test_refusals.py",
    "test_failures.py",
    "test_plugins.py",
    "test_plugin_source.py",
    "test_init.py",
]
# Tests of one group run in one process, one after the other (`--dist loadgroup`).
_GROUPS = {
    # Each process of the tests would start a Ray of its own.
    "ray_of_tests": "ray",
    # Real photographs are decoded once.
    "photographs": "photographs",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    groups: dict[Path, str] = {}
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in _GROUPS:
                groups[item.path] = _GROUPS[fixture]
    numbers: dict[Path, str] = {}
    for item in items:
        # Tests of a file share what its fixtures make, so that they run in one process too. The
        # group becomes a part of what a test is called.
        number = numbers.setdefault(item.path, str(len(numbers)))
        item.add_marker(pytest.mark.xdist_group(groups.get(item.path, number)))
    places = {name: place for place, name in enumerate(_LONG, start=1)}

    def place(item: pytest.Item) -> int:
        return 0 if item.path in groups else places.get(item.path.name, 1 + len(places))

    items.sort(key=place)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))
