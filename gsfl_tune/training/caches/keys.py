"""Keys of what is cached."""

from __future__ import annotations

import hashlib


def digest(*parts: object) -> str:
    """Returns the hex digest of a cache key's parts."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
