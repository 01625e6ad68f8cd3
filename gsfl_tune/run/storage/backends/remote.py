"""Storage at a URL, by file systems of pyarrow or else of fsspec."""

from __future__ import annotations

import os
import shutil
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl, urlsplit

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run.storage.backends.base import PIECE_BYTES, Backend, is_safe
from gsfl_tune.run.storage.backends.folder import Folder

# These write whole objects or nothing. Elsewhere a temporary file is written and moved.
_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss", "memory")
_ARROW = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
_S3_OPTIONS = ("region", "scheme", "endpoint_override")

# Seconds for the connection; after that `Storage` repeats the call.
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0


class _FileSystemBackend(Backend):
    """Accesses objects below a path of a file system.

    Args:
        system: The file system.
        root: Path in the file system.
        objects: Whether a written object appears as a whole.
    """

    def __init__(self, system: Any, root: str, *, objects: bool) -> None:
        self._system = system
        self._root = root.rstrip("/")
        self._objects = objects

    def _path(self, name: str) -> str:
        if not is_safe(name):
            raise ValueError(f"{name!r} is not the name of an object")
        return f"{self._root}/{name}"

    @contextmanager
    def _target(self, path: str) -> Iterator[str]:
        """Yields the path to write an object to; it appears as a whole when the block ends."""
        if self._objects:
            yield path
            return
        folder = path.rpartition("/")[0]
        self._make_folder(folder)
        temporary = f"{folder}/.{uuid.uuid4().hex}.tmp"
        try:
            yield temporary
            self._move(temporary, path)
        except BaseException:
            with suppress(Exception):
                self._remove(temporary)
            raise

    @abstractmethod
    def _make_folder(self, path: str) -> None: ...

    @abstractmethod
    def _move(self, source: str, target: str) -> None: ...

    @abstractmethod
    def _remove(self, path: str) -> None: ...


class ArrowBackend(_FileSystemBackend):
    """Accesses objects below a path of a pyarrow file system (`pyarrow.fs.FileSystem`)."""

    def put(self, name: str, data: bytes) -> None:
        """Writes an object; file systems get a temporary file, which is renamed."""
        with self._target(self._path(name)) as path:
            self._write(path, data)

    def get(self, name: str) -> bytes | None:
        """Reads an object."""
        try:
            with self._system.open_input_stream(self._path(name)) as stream:
                data: bytes = stream.read()
                return data
        except FileNotFoundError:
            return None

    def write_from(self, name: str, file: IO[bytes]) -> None:
        """Writes an object from a file, in parts."""
        with (
            self._target(self._path(name)) as path,
            self._system.open_output_stream(path) as stream,
        ):
            shutil.copyfileobj(file, stream, PIECE_BYTES)

    def read_into(self, name: str, write: Callable[[bytes], object]) -> bool:
        """Reads an object in pieces."""
        try:
            with self._system.open_input_stream(self._path(name)) as stream:
                while piece := stream.read(PIECE_BYTES):
                    write(piece)
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> dict[str, int]:
        """Lists the objects below a folder."""
        from pyarrow import fs

        base = f"{self._root}/{prefix}" if prefix else self._root
        selector = fs.FileSelector(base, allow_not_found=True, recursive=True)
        start = len(self._root.lstrip("/")) + 1
        return {
            name: info.size
            for info in self._system.get_file_info(selector)
            if info.type == fs.FileType.File
            and is_safe(name := info.path.lstrip("/")[start:])
            and not name.endswith(".tmp")
        }

    def delete(self, name: str) -> None:
        """Removes an object."""
        with suppress(FileNotFoundError):
            self._remove(self._path(name))

    def _make_folder(self, path: str) -> None:
        self._system.create_dir(path, recursive=True)

    def _move(self, source: str, target: str) -> None:
        self._system.move(source, target)

    def _remove(self, path: str) -> None:
        self._system.delete_file(path)

    def _write(self, path: str, data: bytes) -> None:
        with self._system.open_output_stream(path) as stream:
            stream.write(data)


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Turns errors of fsspec's libraries into `OSError`."""
    try:
        yield
    except (OSError, UserError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


class FsspecBackend(_FileSystemBackend):
    """Accesses objects below a path of an fsspec file system (`fsspec.AbstractFileSystem`)."""

    def put(self, name: str, data: bytes) -> None:
        """Writes an object; file systems get a temporary file, which is moved."""
        path = self._path(name)
        with _as_os_error(), self._target(path) as target:
            self._system.pipe_file(target, data)

    def get(self, name: str) -> bytes | None:
        """Reads an object."""
        path = self._path(name)
        try:
            with _as_os_error():
                data: bytes = self._system.cat_file(path)
                return data
        except FileNotFoundError:
            return None

    def write_from(self, name: str, file: IO[bytes]) -> None:
        """Writes an object from a file, in parts."""
        path = self._path(name)
        with (
            _as_os_error(),
            self._target(path) as target,
            self._system.open(target, "wb") as stream,
        ):
            shutil.copyfileobj(file, stream, PIECE_BYTES)

    def read_into(self, name: str, write: Callable[[bytes], object]) -> bool:
        """Reads an object in pieces."""
        path = self._path(name)
        try:
            with _as_os_error(), self._system.open(path, "rb") as stream:
                while piece := stream.read(PIECE_BYTES):
                    write(piece)
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> dict[str, int]:
        """Lists the present objects below a folder."""
        self._system.invalidate_cache()
        base = self._path(prefix) if prefix else self._root
        try:
            with _as_os_error():
                found = self._system.find(base, detail=True)
        except FileNotFoundError:
            return {}
        start = len(self._root.lstrip("/")) + 1
        return {
            name: int(info["size"])
            for path, info in found.items()
            if is_safe(name := path.lstrip("/")[start:]) and not name.endswith(".tmp")
        }

    def delete(self, name: str) -> None:
        """Removes an object."""
        path = self._path(name)
        with suppress(FileNotFoundError), _as_os_error():
            self._remove(path)

    def _make_folder(self, path: str) -> None:
        self._system.makedirs(path, exist_ok=True)

    def _move(self, source: str, target: str) -> None:
        self._system.mv(source, target)

    def _remove(self, path: str) -> None:
        self._system.rm_file(path)


def storage_problem(value: Any) -> str | None:
    """Returns what is wrong with the value of ``storage``; None if it can be tried."""
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        return "found no storage name, allowed a path, s3://BUCKET/..., gs://BUCKET/... or null"
    scheme, separator, _ = value.partition("://")
    if not separator or scheme == "file":
        return None
    if "#" in value:
        # What is behind it is no part of a URL's path: all runs would be kept in one place.
        return f"found '{value}', allowed a URL without #"
    parts = urlsplit(value)
    who, at, _ = parts.netloc.rpartition("@")
    # Azure writes CONTAINER@ACCOUNT.
    harmless = who == "anonymous" or (scheme in ("abfs", "abfss") and ":" not in who)
    if at and not harmless:
        return "found a URL with credentials, allowed one without: they come from the environment"
    if scheme in _ARROW:
        return None if parts.netloc else f"found '{value}', allowed {scheme}://BUCKET/..."
    import fsspec

    known = {*_ARROW, *fsspec.available_protocols()}
    if scheme in known:
        return None
    from gsfl_tune.experiment.fields import nearest

    return (
        f"found the unknown scheme {scheme}://, allowed a path, s3://, gs:// or what pyarrow or "
        f"fsspec open{nearest(scheme, sorted(known))}"
    )


def open_backend(url: str, *, create: bool) -> Backend:
    """Opens a storage; questions to a server come later.

    Args:
        url: A path or a URL. Endpoint and credentials come from the environment
            (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ...) or the machine's role.
        create: Whether to create a path that does not exist.

    Raises:
        UserError: If nothing can open it.
        OSError: When it cannot be reached.
    """
    complaint = storage_problem(url)
    if complaint:
        raise UserError(f"storage: {complaint}")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        return Folder(Path(rest if separator else url), create=create)
    objects = scheme in _OBJECT_STORES
    try:
        if scheme == "s3":
            return ArrowBackend(*_s3(url), objects=True)
        if scheme in _ARROW:
            from pyarrow import fs

            mark = "&" if "?" in url else "?"
            limited = f"{url}{mark}retry_limit_seconds={_ANSWER_SECONDS:g}"
            return ArrowBackend(
                *fs.FileSystem.from_uri(limited if scheme in ("gs", "gcs") else url),
                objects=objects,
            )
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"storage: {url} cannot be opened: {error}") from error
    return FsspecBackend(*_fsspec(url), objects=objects)


def _s3(url: str) -> tuple[Any, str]:
    """Opens pyarrow's S3 with our timeouts, as `from_uri` takes neither timeouts nor retries."""
    from pyarrow import fs

    parts = urlsplit(url)
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    unknown = sorted({*options} - {*_S3_OPTIONS})
    if unknown:
        raise UserError(
            f"storage: found {unknown[0]} in {url}, allowed are {', '.join(_S3_OPTIONS)}"
        )
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "endpoint_override" not in options:
        scheme, separator, rest = endpoint.partition("://")
        options["endpoint_override"] = (rest if separator else endpoint).rstrip("/")
        if separator:
            options["scheme"] = scheme
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    bucket = parts.netloc.removeprefix("anonymous@")
    if "region" not in options:
        if region or "endpoint_override" in options:
            options["region"] = region or "us-east-1"
        else:
            options["region"] = fs.resolve_s3_region(bucket)
    system = fs.S3FileSystem(
        **options,
        anonymous=parts.netloc.startswith("anonymous@"),
        background_writes=False,
        allow_delayed_open=True,
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_ANSWER_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
    )
    return system, f"{bucket}{parts.path}"


def _fsspec(url: str) -> tuple[Any, str]:
    import fsspec

    opened: Callable[..., Any] = fsspec.core.url_to_fs
    try:
        system, root = opened(url, use_listings_cache=False)
    except ImportError as error:
        raise UserError(f"storage: {url} needs another package: {error}") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"storage: {url} cannot be opened: {error}") from error
    return system, root
