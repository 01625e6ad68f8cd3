"""Cache entries that the nodes of a cluster share, so that one of them builds for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

# What costs time to compute. Copies of remote files and digests are each node's own.
SHARED = ("decoded", "features", "prefix", "projections", "groups")

Build = Callable[[Path], None]


class Sharing(Protocol):
    """Where entries come from that another node has built."""

    def through(self, path: Path, build: Build) -> Build:
        """Makes a builder that asks other nodes first.

        Args:
            path: The entry in the cache of this node.
            build: Builds it here: a file.
        """
        ...


_sharing: Sharing | None = None


def share_cache(sharing: Sharing | None) -> None:
    """Names where this process shares its cache, None for nowhere."""
    global _sharing
    _sharing = sharing


def shared_build(path: Path, build: Build) -> Build:
    """The builder of an entry, by way of other nodes where there are any."""
    if _sharing is None or path.parent.name not in SHARED:
        return build
    return _sharing.through(path, build)
