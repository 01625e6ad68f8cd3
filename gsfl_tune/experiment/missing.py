"""Complaints about files that an experiment names and that do not exist."""

from __future__ import annotations

import glob
import os
import re

from gsfl_tune.experiment.braces import expand_braces


def missing_file(path: str) -> str | None:
    """Complains about a local path that does not exist; URLs are checked by their readers."""
    local = path.removeprefix("file://")
    if "://" in local or os.path.exists(local):
        return None
    files = expand_braces(local)
    lacking = [file for file in files if not _is_there(file)]
    if not lacking:
        return None
    if len(files) > 1:
        return f"found '{path}', of which {len(lacking)} do not exist, such as {lacking[0]}"
    unset = re.search(r"\$\{?\w+\}?", local)
    hint = f"; the environment variable {unset[0]} is not set" if unset else ""
    return f"found '{path}', which does not exist{hint}"


def _is_there(path: str) -> bool:
    return os.path.exists(path) or (glob.has_magic(path) and bool(glob.glob(path)))
