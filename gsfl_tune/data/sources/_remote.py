"""Finds files on the local disk or on any file system of pyarrow or fsspec."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from gsfl_tune.activity import activity
from gsfl_tune.cache.building import build_once
from gsfl_tune.data.sources._base import Part, expand
from gsfl_tune.data.sources._file_parts import choose_config, part_of, refuse_glued, wanted
from gsfl_tune.experiment.braces import expand_braces
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.url_options import options_problem, server_in, split_options

_PIECE = 1 << 20
_WILDCARDS = re.compile(r"[*?\[]")
# Elsewhere the first part of a path is a bucket, or there is no host.
_WITH_HOST = ("hdfs", "viewfs", "webhdfs", "sftp", "ssh", "ftp", "smb")


@dataclass(frozen=True)
class Kind:
    """Describes a kind of files to look for.

    Attributes:
        name: Name for messages.
        suffix: Suffix of such files in a folder.
        refused: Suffixes of such files that cannot be read, with advice.
    """

    name: str
    suffix: str
    refused: tuple[tuple[str, str], ...] = ()

    def holds(self, path: str) -> bool:
        """Returns whether a file of a folder is of the kind."""
        return path.lower().endswith((self.suffix, *(suffix for suffix, _ in self.refused)))

    def refuse(self, name: str) -> None:
        """Raises an error if a file's name shows that it cannot be read.

        Raises:
            UserError: If it cannot be read.
        """
        for suffix, reason in self.refused:
            if name.lower().endswith(suffix):
                raise UserError(f"data.path: {name}: {reason}")


_SQUEEZED = (
    "a compressed archive cannot be read image by image; {} it and name the .tar if it holds "
    "samples of WebDataset, unpack it if it holds folders"
)
PARQUET = Kind("Parquet files", ".parquet")
TAR = Kind(
    "tar files",
    ".tar",
    (
        *((suffix, _SQUEEZED.format("`gunzip`")) for suffix in (".tar.gz", ".tgz")),
        *((suffix, _SQUEEZED.format("`unxz`")) for suffix in (".tar.xz", ".txz")),
        *((suffix, _SQUEEZED.format("`bunzip2`")) for suffix in (".tar.bz2", ".tbz2")),
        *((suffix, _SQUEEZED.format("`unzstd`")) for suffix in (".tar.zst", ".tzst")),
    ),
)


@dataclass(frozen=True)
class SourceFile:
    """Describes a file to read.

    Attributes:
        name: Name for messages: the path or URL.
        local: Local path of the file.
        part: The part in its name.
        options: Options of its URL for the file system, see `split_options`.
    """

    name: str
    local: Path
    part: Part | None
    options: str = ""


def find_files(
    path: str | list[str] | None,
    cache: Path,
    kind: Kind,
    config: str | None = None,
    *,
    divided: bool = True,
    left_out: Counter[str] | None = None,
) -> list[SourceFile]:
    """Finds all files that ``data.path`` names, by name within each entry.

    Remote files are copied into the cache, once for each version.

    Args:
        path: Files, folders, patterns (also ``{000..003}``), URLs.
        cache: The cache directory.
        kind: Kind of the files.
        config: Name of the configuration, if there are several in adjacent folders.
        divided: Whether the parts in the names matter.
        left_out: Counts files of the kind that are not read, by reason.

    Raises:
        UserError: If an entry does not exist, matches nothing, or cannot be reached; if a folder
            has several configurations, a file name is ambiguous, or a file cannot be read.
    """
    ask = _Ask(kind, config, divided, Counter() if left_out is None else left_out)
    if path is None or path == []:
        raise UserError(
            f"data.path is missing: it must name {kind.name}, a folder of them, or a URL"
        )
    files: dict[str, SourceFile] = {}
    for entry in [path] if isinstance(path, str) else path:
        for name in _names(expand(entry)):
            found = _remote(name, cache, ask) if "://" in name else _local(name, ask)
            if not found:
                raise UserError(f"data.path: no {kind.name} match {name}")
            files.update({file.name: file for file in found})
    ask.refuse_glued({name: file.part for name, file in files.items()})
    return list(files.values())


def fetch_if_there(folder: str, name: str, cache: Path, options: str = "") -> Path | None:
    """Returns the local path of a folder's file; None if there is none.

    Args:
        folder: A path or URL.
        name: Name of the file.
        cache: Folder for a copy of a remote file.
        options: Options of the URL for the file system, see `split_options`.

    Raises:
        UserError: If it exists but cannot be read.
    """
    if "://" not in folder:
        file = Path(folder) / name
        return file if file.is_file() else None
    url = f"{folder}/{name}"
    try:
        system, path = _file_system(url + options)
        info = system.get_file_info(path)
        if info.type != fs.FileType.File:
            return None
        return _fetch(system, info, url + server_in(options), cache, ".text")
    except FileNotFoundError:
        return None
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"data.path: {url} cannot be read: {error}") from error


def _names(entry: str) -> list[str]:
    """Returns the names that braces expand to; an existing path is not expanded."""
    return [entry] if os.path.exists(entry) else expand_braces(entry)


def list_url(url: str) -> list[tuple[str, int]]:
    """Returns path and size in bytes of every data file below a URL, without reading them.

    Raises:
        UserError: If it cannot be opened, or is empty.
    """
    listed: list[tuple[str, int]] = []
    for name in expand_braces(url):
        system, root = _file_system(name)
        found = _select(system, root, PARQUET) or _select(system, root, TAR)
        listed += [(info.path, info.size or 0) for info in found]
    return listed


def open_one(url: str, kind: Kind, config: str | None) -> tuple[str, Any]:
    """Opens one of the files that a URL names, where it lies: of the training part, if any.

    Args:
        url: A file, a folder or a pattern.
        kind: Kind of the files.
        config: Name of the configuration, if there are several in adjacent folders.

    Returns:
        Its path on its file system, and the open file.

    Raises:
        UserError: As for `find_files`.
        OSError: If it cannot be opened.
    """
    name = _names(expand(url))[0]
    system, found = _listed(name, _Ask(kind, config, True, Counter()))
    if not found:
        raise UserError(f"data.path: no {kind.name} match {name}")
    info, _ = min(found, key=lambda each: each[1] != "train")
    return info.path, system.open_input_file(info.path)


@dataclass(frozen=True)
class _Ask:
    """Holds which files are asked for, see `find_files`."""

    kind: Kind
    config: str | None
    divided: bool
    left_out: Counter[str]

    def chosen(self, names: list[str], root: str) -> list[str]:
        """Returns the files of a folder to read."""
        return choose_config(wanted(names, root, self.left_out), root, self.config)

    def parts(self, names: list[str], root: str = "") -> dict[str, Part | None]:
        """Returns the part of each file that is read.

        Raises:
            UserError: If a name is ambiguous, or a file cannot be read.
        """
        for name in names:
            self.kind.refuse(name)
        if not self.divided:
            return dict.fromkeys(names)
        parts = {name: part_of(name, root) for name in names}
        self.refuse_glued(parts, root)
        return parts

    def refuse_glued(self, parts: dict[str, Part | None], root: str = "") -> None:
        """Raises an error if names may mean parts that are not understood."""
        # Files without a part beside files with one are a problem that the source reports.
        if self.divided and not any(parts.values()):
            refuse_glued(list(parts), root)


def _local(entry: str, ask: _Ask) -> list[SourceFile]:
    path = Path(entry)
    # The absolute path, as the digests of the rows are cached by it.
    root = os.path.abspath(entry) if path.is_dir() else ""
    if root:
        listed = sorted(os.path.abspath(file) for file in path.rglob("*"))
        names = [name for name in listed if ask.kind.holds(name) and os.path.isfile(name)]
        names = ask.chosen(names, root)
    elif path.exists():
        names = [os.path.abspath(entry)]
    elif _WILDCARDS.search(entry):
        names = [os.path.abspath(name) for name in sorted(glob.glob(entry, recursive=True))]
        names = [name for name in names if os.path.isfile(name)]
        names = wanted(names, None, ask.left_out)
    else:
        raise UserError(f"data.path: {entry} does not exist (looked in {Path.cwd()})")
    return [SourceFile(name, Path(name), part) for name, part in ask.parts(names, root).items()]


def _remote(url: str, cache: Path, ask: _Ask) -> list[SourceFile]:
    system, found = _listed(url, ask)
    origin, options = _origin(url), split_options(url)[1]
    files = []
    for info, part in found:
        name = _address(origin, info.path) + server_in(options)
        try:
            local = _fetch(system, info, name, cache, ask.kind.suffix)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"data.path: {name} cannot be read: {error}") from error
        files.append(SourceFile(name, local, part, options))
    return files


def _listed(url: str, ask: _Ask) -> tuple[fs.FileSystem, list[tuple[Any, Part | None]]]:
    """Returns a URL's file system, and the files to read there with their parts."""
    try:
        system, root = _file_system(url)
        found = _select(system, root, ask.kind)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"data.path: {url} cannot be opened: {error}") from error
    folder = "" if _WILDCARDS.search(root) or [info.path for info in found] == [root] else root
    infos = {info.path: info for info in found}
    names = ask.chosen(list(infos), folder) if folder else list(infos)
    return system, [(infos[path], part) for path, part in ask.parts(names, folder).items()]


def _origin(url: str) -> str:
    """Returns what precedes a file system's paths in a URL: the host, where no path holds it.

    A password is left out, as names of files are written down.
    """
    parts = urlsplit(url)
    if parts.scheme not in _WITH_HOST:
        return f"{parts.scheme}://"
    user, _, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return f"{parts.scheme}://{name}@{host}/" if name else f"{parts.scheme}://{host}/"


def _address(origin: str, path: str) -> str:
    """Returns the URL of a path in a file system, see `_origin`."""
    if "://" in path:  # that of HTTP has whole URLs for paths
        return path
    return origin + (path if origin == "file://" else path.lstrip("/"))


def _file_system(url: str) -> tuple[fs.FileSystem, str]:
    """Returns the file system and the path in it; wildcards stay in the path."""
    problem = options_problem(url)
    if problem is not None:
        raise UserError(f"data.path: {url}: {problem}")
    bare, options = split_options(url)
    fixed = _WILDCARDS.split(bare, maxsplit=1)[0]
    try:
        system, path = fs.FileSystem.from_uri(fixed + options)
    except Exception as arrow_error:
        if options:  # that only pyarrow reads
            raise UserError(f"data.path: {url} cannot be opened: {arrow_error}") from arrow_error
        import fsspec

        try:
            opened, path = fsspec.core.url_to_fs(fixed)
        except ImportError as error:
            raise UserError(f"data.path: {url} needs another package: {error}") from error
        except ValueError as error:
            raise UserError(f"data.path: {url} cannot be opened: {arrow_error}; {error}") from error
        system = fs.PyFileSystem(fs.FSSpecHandler(opened))
    return system, path + bare[len(fixed) :]


def _select(system: fs.FileSystem, path: str, kind: Kind) -> list[Any]:
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
            found = [info for info in found if kind.holds(info.path)]
    found = [info for info in found if info.type == fs.FileType.File]
    return sorted(found, key=lambda info: info.path)


def _fetch(system: fs.FileSystem, info: Any, name: str, cache: Path, suffix: str) -> Path:
    """Copies one file into the cache unless this version of it exists there.

    The cached file gets our own suffix, as ``.json`` and some others have a meaning in a cache.
    """
    version = f"{name}|{info.size}|{info.mtime_ns}|{_file_version(system, info.path)}"
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

    file = cache / "remote" / f"{key}{suffix}"
    return build_once(file, build, what=name, size=info.size or 0)


def _file_version(system: fs.FileSystem, path: str) -> str:
    """Returns what fsspec knows of a file's version (etag, time of creation, ...)."""
    handler = getattr(system, "handler", None)
    return str(handler.fs.ukey(path)) if handler is not None else ""
