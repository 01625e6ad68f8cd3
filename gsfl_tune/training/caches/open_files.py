"""The limit of open files."""

from __future__ import annotations

import resource


def allow_open_files(count: int) -> None:
    """Raises the limit of open files, as every view is a file that stays open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 512
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
