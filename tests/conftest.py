"""What holds for the tests of every room."""

from __future__ import annotations

import gc
import os
from typing import Any

# Python looks through all objects again and again while they only become more: those of torch and
# timm, then thousands of tests. An eighth of the suite's time went there.
gc.disable()

import pytest  # noqa: E402
import torch  # noqa: E402

# Ray runs its workers at niceness 15, so that they starve beside other test processes: searches of
# seconds took minutes, and their drivers polled all the while.
os.environ.setdefault("RAY_worker_niceness", "0")

# Files that take longest begin first (`--no-loadscope-reorder` keeps this order), so that no
# process is left with one of them when the others have nothing to do.
_LONG = [
    "test_pipeline.py",
    "test_begin_and_resume.py",
    "test_runner.py",
    "test_submit.py",
    "test_stop_conditions.py",
    "test_server.py",
    "test_refusals.py",
    "test_convert.py",
    "test_pareto.py",
    "test_heartbeat.py",
    "test_run_retrains.py",
    "test_failures.py",
    "test_plugins.py",
    "test_plugin_source.py",
    "test_init.py",
    "test_time_budget.py",
    "test_gpu.py",
]

# Files that share what takes seconds to make, and CPU as long as it is there: by the beginnings of
# their paths. One process runs all of them, where three would make it three times.
_TOGETHER = {
    "a Ray": (
        "tests/search/ray_tune/",
        "tests/search/finals/test_resumed_finals.py",
        "tests/search/finals/test_run_retrains.py",
        "tests/search/observers/test_utilisation.py",
    ),
    "servers": ("tests/serve/",),
    "a data set with issues": ("tests/issues/",),
    "a search that was followed": ("tests/search/observers/tracking/",),
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            for name, beginnings in _TOGETHER.items():
                if nodeid.startswith(beginnings):
                    return name
            return str(super()._split_scope(nodeid))

    return Scheduling(config, log)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(_LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))
