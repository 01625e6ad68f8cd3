"""The cache of a node as a whole: what is in it, how large it may be, and what goes first."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gsfl_tune.cache.locks import file_lock, log, try_file_lock, unused
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.experiment.units import decimal_size

# The folders of a cache. Nothing outside of them is ever evicted.
KINDS = (
    *("decoded", "features", "prefix", "projections", "groups", "teachers", "texts"),
    *("pretrained", "int8", "remote", "digests", "looks", "splits"),
)

DIRECTORY_VARIABLE = "GSFL_TUNE_CACHE"
LIMIT_VARIABLE = "GSFL_TUNE_CACHE_LIMIT"
DEFAULT_LIMIT = 100 * 10**9

State = Literal["free", "in use", "building"]

_UNITS = {"B": 1} | {
    f"{letter}{kind}": base**power
    for kind, base in (("B", 1000), ("IB", 1024))
    for power, letter in enumerate("KMGT", start=1)
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(%|[KMGT]?I?B)", re.IGNORECASE)

_said: set[str] = set()


@dataclass(frozen=True)
class Entry:
    """Holds one thing that was computed once.

    Attributes:
        kind: Folder of the cache that it is in.
        path: File or directory.
        size: Bytes.
        used: Time of the last use, in seconds since 1970.
        what: What it is, in words; empty where nobody wrote it down.
        state: `in use` while any process reads it, `building` while one writes it.
    """

    kind: str
    path: Path
    size: int
    used: float
    what: str
    state: State


def cache_directory() -> Path:
    """Returns where caches live: ``$GSFL_TUNE_CACHE``, else ``~/.cache/gsfl-tune``.

    The path is absolute: Ray runs every trial in a working directory of its own, where a relative
    one would name another cache.
    """
    given = os.environ.get(DIRECTORY_VARIABLE)
    return Path(given).expanduser().absolute() if given else Path.home() / ".cache" / "gsfl-tune"


def cache_of(path: Path) -> Path | None:
    """Returns the cache that an entry belongs to; None for a path that is in none."""
    return path.parent.parent if path.parent.name in KINDS else None


def cache_limit(cache: Path) -> int | None:
    """Returns the bytes a cache may hold: ``$GSFL_TUNE_CACHE_LIMIT``, None for no limit.

    By default half of the file system, but at most 100 GB.

    Raises:
        UserError: If the variable says something else than a size, a share or `none`.
    """
    parsed = parse_limit(os.environ.get(LIMIT_VARIABLE))
    if parsed is None or isinstance(parsed, int):
        return parsed
    total = shutil.disk_usage(_existing(cache)).total
    share = int(total * parsed)
    return share if os.environ.get(LIMIT_VARIABLE) else min(share, DEFAULT_LIMIT)


def parse_limit(text: str | None) -> int | float | None:
    """Reads a limit: bytes, a share of the file system (0..1), or None for no limit.

    Raises:
        UserError: If it is none of them.
    """
    if not text:
        return 0.5
    if text.strip().lower() == "none":
        return None
    match = _SIZE.fullmatch(text.strip())
    number = float(match[1]) if match else 0.0
    if match and match[2] == "%" and 0 < number <= 100:
        return number / 100
    if match and match[2] != "%" and int(number * _UNITS[match[2].upper()]) > 0:
        return int(number * _UNITS[match[2].upper()])
    raise UserError(
        f"{LIMIT_VARIABLE}: found '{text}', allowed a size such as 50GB, a share of the disk such "
        "as 20%, or none"
    )


def describe(path: Path, what: str) -> None:
    """Writes down what an entry is; a cache that cannot be written stays as it is."""
    with contextlib.suppress(OSError):
        _sidecar(path).write_text(json.dumps({"what": what, "built": int(time.time())}))


def forget(path: Path) -> None:
    """Removes what `describe` wrote."""
    with contextlib.suppress(OSError):
        _sidecar(path).unlink(missing_ok=True)


def touch(path: Path, what: str = "") -> None:
    """Notes that an entry is used now. (Access times are switched off on many file systems.)"""
    try:
        os.utime(_sidecar(path))
    except FileNotFoundError:
        describe(path, what)
    except OSError:
        pass  # another user's cache can be read all the same


def entries(cache: Path) -> list[Entry]:
    """Returns everything in a cache, most recently used first."""
    found: dict[Path, Entry] = {}
    for kind in KINDS:
        for path in _listed(cache / kind):
            if path.suffix in (".lock", ".json"):
                continue
            target, state = path, _state(path)
            if path.suffix == ".tmp":
                target, state = _target(path), "building"
                if target.exists() or not _is_locked(target):
                    continue
            size = disk_size(path)
            if not size and not path.exists():
                continue  # evicted meanwhile
            found[target] = Entry(kind, target, size, _last_use(target, path), _what(target), state)
    return sorted(found.values(), key=lambda entry: -entry.used)


def remove(entry: Entry) -> bool:
    """Removes an entry, unless a process uses or builds it; returns whether it is gone."""
    path = entry.path
    with unused(path) as free:
        if not free:
            return False
        try:
            if path.is_dir():
                # One step: a half-removed directory must not look like an entry.
                doomed = path.with_name(f"{path.name}.{os.getpid()}-evicted.tmp")
                os.replace(path, doomed)
                shutil.rmtree(doomed, ignore_errors=True)
            else:
                path.unlink()
        except OSError:
            return False
    _tidy(path, [])
    return True


def sweep(cache: Path) -> None:
    """Removes what builders that were killed and evictions left behind."""
    for kind in KINDS:
        leftovers: dict[Path, list[Path]] = {}
        for path in _listed(cache / kind):
            if path.suffix == ".tmp":
                leftovers.setdefault(_target(path), []).append(path)
            elif path.suffix in (".lock", ".json") and not path.with_suffix("").exists():
                leftovers.setdefault(path.with_suffix(""), [])
        for target, temporary in leftovers.items():
            _tidy(target, temporary)


def make_room(cache: Path, wanted: int = 0, what: str = "an entry") -> None:
    """Evicts what was not used for longest until a cache is within its limit.

    Args:
        cache: The cache.
        wanted: Bytes that will be written next, 0 if unknown.
        what: What will be written, for messages.

    Raises:
        EnvironmentProblem: If the disk has no room for it even so.
        UserError: If the limit is not a limit.
    """
    limit = cache_limit(cache)
    with file_lock(cache / ".eviction.lock", "makes room in the cache"):
        sweep(cache)
        listed = entries(cache)
        total = sum(entry.size for entry in listed)
        free = shutil.disk_usage(cache).free
        if wanted > free + sum(entry.size for entry in listed if entry.state == "free"):
            raise EnvironmentProblem(_too_small(cache, free, wanted, what))
        for entry in reversed(listed):
            if (limit is None or total + wanted <= limit) and free >= wanted:
                break
            if remove(entry):
                total -= entry.size
                free += entry.size
    free = shutil.disk_usage(cache).free
    if free < wanted:
        raise EnvironmentProblem(_too_small(cache, free, wanted, what))
    if limit is not None and wanted > limit:
        _say_once(
            f"{what} takes {decimal_size(wanted)}, more than the whole cache may hold "
            f"({LIMIT_VARIABLE}: {decimal_size(limit)}); it is kept until something else is built"
        )
    elif limit is not None and total + wanted > limit:
        _say_once(
            f"the cache {cache} holds {decimal_size(total + wanted)}, more than its limit "
            f"({LIMIT_VARIABLE}: {decimal_size(limit)}), as what it holds is in use"
        )


def disk_size(path: Path) -> int:
    """Counts the bytes of a file, or of all files below a directory."""
    try:
        if not path.is_dir():
            return path.stat().st_size
        return sum(disk_size(inner) for inner in path.iterdir())
    except OSError:  # removed meanwhile
        return 0


def _tidy(target: Path, temporary: Iterable[Path]) -> None:
    """Removes temporary files of an entry that nobody builds, and its sidecars if it is gone."""
    lock = lock_file(target)
    with try_file_lock(lock) as held:
        if not held:
            return
        for path in temporary:
            remove_path(path)
        if not target.exists():
            forget(target)
            lock.unlink(missing_ok=True)


def remove_path(path: Path) -> None:
    """Removes a file or directory, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def lock_file(path: Path) -> Path:
    """Returns the lock that the builder of an entry holds."""
    return path.with_name(path.name + ".lock")


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _target(temporary: Path) -> Path:
    """The entry that a temporary file NAME.PROCESS.tmp was to become."""
    return temporary.with_suffix("").with_suffix("")


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _state(path: Path) -> State:
    with unused(path) as free:
        return "free" if free else "in use"


def _is_locked(target: Path) -> bool:
    lock = lock_file(target)
    if not lock.exists():
        return False
    with try_file_lock(lock) as held:
        return not held


def _last_use(target: Path, path: Path) -> float:
    for file in (_sidecar(target), path):
        try:
            return file.stat().st_mtime
        except OSError:
            continue
    return 0.0


def _what(path: Path) -> str:
    try:
        return str(json.loads(_sidecar(path).read_text())["what"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _too_small(cache: Path, free: int, wanted: int, what: str) -> str:
    return (
        f"the cache directory {cache} has {decimal_size(free)} free, but {what} takes "
        f"{decimal_size(wanted)}; {DIRECTORY_VARIABLE} names another one"
    )


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        log.warning(text)
