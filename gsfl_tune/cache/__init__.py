"""The cache of a node: what is computed once, who builds it, who uses it, what is evicted."""

from gsfl_tune.cache.building import acquire, build_once
from gsfl_tune.cache.entries import cache_directory

__all__ = ["acquire", "build_once", "cache_directory"]
