"""Tests wait for conditions (`tests.waiting`), not for time to pass."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLEEP = re.compile(r"\bsleep\(")

# What sleeps by intent, how often, and why no condition can take its place.
ALLOWED = {
    "tests/waiting.py": (1, "polls: the only place that may"),
    "tests/faults/test_many_kills.py": (1, "kills at random moments of a trial"),
    "tests/search/finals/test_memory_of_retrains.py": (1, "Ray tells nobody that it looked"),
    "tests/search/trainables.py": (4, "stands for a hang, a slow start, and work that takes time"),
    "tests/search/ray_tune/test_head_watchdog.py": (1, "stands for a call that hangs"),
    "tests/cli/test_interrupts.py": (2, "stands for a long import, which a signal ends"),
    "tests/cli/test_submit.py": (1, "stands for saving that takes longer than Ray's patience"),
    "tests/benchmarks/test_gpu.py": (1, "stands for a step that hangs"),
    "tests/cluster/session/test_start.py": (1, "polls in a process of its own"),
}


def test_nothing_sleeps_but_what_is_named():
    done = subprocess.run(
        ["git", "ls-files", "--", "tests/*.py"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("not a checkout")
    found: Counter[str] = Counter()
    for name in done.stdout.splitlines():
        if name != Path(__file__).relative_to(ROOT).as_posix() and (ROOT / name).is_file():
            # Programs that tests start are strings, so the text is searched and not its syntax.
            found[name] = len(SLEEP.findall((ROOT / name).read_text(encoding="utf-8")))
    assert {name: count for name, count in found.items() if count} == {
        name: count for name, (count, _) in ALLOWED.items()
    }
