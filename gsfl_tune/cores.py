"""The CPU of this machine, and the cores of it that this process may use."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import lru_cache
from pathlib import Path


def usable_cores() -> int:
    """Returns their number: those of the affinity where the system has one (macOS has none)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=1)
def model_name() -> str:
    """Returns the name of this machine's CPU, for people."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def processor() -> str:
    """Returns all that tells kinds of CPUs apart, for keys: nodes may share the disk of a cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    fields = (line.partition(":") for line in lines)
    wanted = {"vendor_id", "cpu family", "model", "model name", "flags"}
    found = {key.strip(): value.strip() for key, _, value in fields if key.strip() in wanted}
    return repr(sorted(found.items()))
