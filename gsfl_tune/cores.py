"""The CPU cores of this machine that this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Returns their number: those of the affinity where the system has one (macOS has none)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
