"""Finds Parquet files, on the local disk or on any file system that pyarrow or fsspec opens."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from gsfl_tune.activity import activity
from gsfl_tune.data.locking import build_once
from gsfl_tune.data.sources._base import PART_NAMES, Part, expand
from gsfl_tune.experiment.errors import UserError

_PIECE = 1 << 20
_WILDCARDS = re.compile(r"[*?\[]")
_PART_PREFIX = re.compile(r"(training|train|validation|valid|val|test)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class ParquetFile:
    """A file to read.

    Attributes:
        name: What messages call it: the path or URL.
        local: Where it can be read.
        part: The part that its name tells.
    """

    name: str
    local: Path
    part: Part | None


def find_parquet(path: str | list[str] | None, cache: Path) -> list[ParquetFile]:
    """All files that ``data.path`` names, in the order of their names within each entry.

    Files that are not on the local disk are copied into the cache, once for each version.

    Raises:
        UserError: If an entry does not exist, matches nothing, or cannot be reached.
    """
    if path is None or path == []:
        raise UserError(
            "data.path is missing: it must name Parquet files, a folder of them, or a URL"
        )
    files: dict[str, ParquetFile] = {}
    for entry in [path] if isinstance(path, str) else path:
        expanded = expand(entry)
        found = _remote(expanded, cache) if "://" in expanded else _local(expanded)
        if not found:
            raise UserError(f"data.path: no Parquet files match {expanded}")
        files.update({file.name: file for file in found})
    return list(files.values())


def list_url(url: str) -> list[tuple[str, int]]:
    """Path and size in bytes of every file that a URL names; reads none of them.

    Raises:
        UserError: If it cannot be opened, or there is nothing.
    """
    system, root = _file_system(url)
    return [(info.path, info.size or 0) for info in _select(system, root)]


def part_of(name: str) -> Part | None:
    """The part that the name of a file tells, else that of its folder."""
    path = Path(name)
    match = _PART_PREFIX.match(path.name)
    word = match.group(1) if match else path.parent.name
    return PART_NAMES.get(word.lower())


def _local(entry: str) -> list[ParquetFile]:
    path = Path(entry)
    if path.is_dir():
        found = sorted(path.rglob("*.parquet"))
    elif path.exists():
        found = [path]
    elif _WILDCARDS.search(entry):
        found = [Path(name) for name in sorted(glob.glob(entry, recursive=True))]
    else:
        raise UserError(f"data.path: {entry} does not exist (looked in {Path.cwd()})")
    # The absolute path: the digests of the rows are remembered under it.
    return [
        ParquetFile(os.path.abspath(file), file, part_of(os.path.abspath(file)))
        for file in found
        if file.is_file() and not file.name.startswith((".", "_"))
    ]


def _remote(url: str, cache: Path) -> list[ParquetFile]:
    try:
        system, root = _file_system(url)
        found = _select(system, root)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"data.path: {url} cannot be opened: {error}") from error
    scheme = url.split("://", 1)[0]
    files = []
    for info in found:
        name = f"{scheme}://{info.path.lstrip('/')}"
        try:
            local = _fetch(system, info, name, cache)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"data.path: {name} cannot be read: {error}") from error
        files.append(ParquetFile(name, local, part_of(info.path)))
    return files


def _file_system(url: str) -> tuple[fs.FileSystem, str]:
    """The file system and the path in it; wildcards stay in the path."""
    fixed = _WILDCARDS.split(url, maxsplit=1)[0]
    try:
        system, path = fs.FileSystem.from_uri(fixed)
    except Exception as arrow_error:
        import fsspec

        try:
            opened, path = fsspec.core.url_to_fs(fixed)
        except ImportError as error:
            raise UserError(f"data.path: {url} needs another package: {error}") from error
        except ValueError as error:
            raise UserError(f"data.path: {url} cannot be opened: {arrow_error}; {error}") from error
        system = fs.PyFileSystem(fs.FSSpecHandler(opened))
    return system, path + url[len(fixed) :]


def _select(system: fs.FileSystem, path: str) -> list[Any]:
    if _WILDCARDS.search(path):
        base = _WILDCARDS.split(path, maxsplit=1)[0].rpartition("/")[0]
        found = system.get_file_info(fs.FileSelector(base, recursive=True))
        found = [info for info in found if fnmatch.fnmatch(info.path, path)]
    else:
        info = system.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise UserError(f"data.path: {path} does not exist on {system.type_name}")
        found = [info]
        if info.type == fs.FileType.Directory:
            found = system.get_file_info(fs.FileSelector(path, recursive=True))
            found = [info for info in found if info.path.endswith(".parquet")]
    found = [info for info in found if info.type == fs.FileType.File]
    return sorted(found, key=lambda info: info.path)


def _fetch(system: fs.FileSystem, info: Any, name: str, cache: Path) -> Path:
    """Copies one file into the cache unless this version of it is there."""
    version = f"{name}|{info.size}|{info.mtime_ns}|{_fingerprint(system, info.path)}"
    key = hashlib.blake2b(version.encode(), digest_size=16).hexdigest()

    def build(target: Path) -> None:
        with (
            activity(f"fetching {name}", info.size and -(-info.size // _PIECE), "MiB") as step,
            system.open_input_stream(info.path) as source,
            target.open("wb") as sink,
        ):
            while piece := source.read(_PIECE):
                sink.write(piece)
                step.done += 1

    file = cache / "remote" / f"{key}.parquet"
    return build_once(file, build, what=name, size=info.size or 0)


def _fingerprint(system: fs.FileSystem, path: str) -> str:
    """What fsspec knows of a file's version (etag, time of creation, ...)."""
    handler = getattr(system, "handler", None)
    return str(handler.fs.ukey(path)) if handler is not None else ""
