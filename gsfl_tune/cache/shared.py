"""Cache entries that the nodes of a cluster share, so that one of them builds for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

# What costs time to compute. Copies of remote files and digests are each node's own.
SHARED_KINDS = (
    *("decoded", "features", "prefix", "projections", "groups", "teachers"),
    "pretrained",
)

Build = Callable[[Path], None]


class SharedCache(Protocol):
    """Holds where entries come from that another node has built."""

    def through(self, path: Path, build: Build) -> Build:
        """Makes a builder that asks other nodes first.

        Args:
            path: The entry in the cache of this node.
            build: Builds it here: a file.
        """
        ...


_shared_cache: SharedCache | None = None


def use_shared_cache(shared_cache: SharedCache | None) -> None:
    """Names where this process shares its cache, None for nowhere."""
    global _shared_cache
    _shared_cache = shared_cache


def is_shared() -> bool:
    """Returns whether this process shares its cache with other nodes."""
    return _shared_cache is not None


def shared_builder(path: Path, build: Build) -> Build:
    """Returns the builder of an entry, by way of other nodes where there are any."""
    if _shared_cache is None or path.parent.name not in SHARED_KINDS:
        return build
    return _shared_cache.through(path, build)
