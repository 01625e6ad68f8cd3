"""Processes that use the cache without importing what it is for, so that they start fast."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_PACKAGES_ALONE = """
import sys, types
for name in ("gsfl_tune", "gsfl_tune.cache", "gsfl_tune.experiment"):
    package = types.ModuleType(name)
    package.__path__ = [name.replace(".", "/")]
    sys.modules[name] = package
"""


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Starts a script that may import modules of `gsfl_tune.cache`."""
    return subprocess.Popen(
        [sys.executable, "-c", _PACKAGES_ALONE + script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
