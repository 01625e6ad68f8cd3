"""The files of a bundle: names, format version, digests, and writing all of them at once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from gsfl_tune.experiment.errors import UserError

FORMAT = 1
MODEL = "model.safetensors"
# Model file by export format.
MODELS = {
    "safetensors": MODEL,
    "onnx": "model.onnx",
    "torch-export": "model.pt2",
    "openvino": "model.xml",
}
# Files beside it: an IR's graph and weights are apart.
_WEIGHTS = {"openvino": "model.bin"}
SHARED = "shared.safetensors"
NEIGHBOURS = "neighbours.safetensors"
CONFIG = "config.json"
CLASSES = "classes.json"
GROUPS = "groups.json"
METRICS = "metrics.json"
CARD = "README.md"
REQUIRED = (CONFIG, CLASSES, GROUPS, METRICS)


class BundleError(UserError):
    """Signals a bundle that is missing, damaged, or of another version."""


def model_files(format: str) -> tuple[str, ...]:
    """Returns the names of a format's model files; the first one is what readers open."""
    return (MODELS[format], *(name for key, name in _WEIGHTS.items() if key == format))


def tensor_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Encodes tensors as safetensors, on the CPU, each with its own memory."""
    # Cloned because safetensors refuses tied weights (two names for one memory).
    plain = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())
    }
    return save_tensors(plain, metadata={"format": "pt"})


def json_bytes(content: Any) -> bytes:
    """Encodes indented JSON in UTF-8."""
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def sha256(data: bytes) -> str:
    """Returns the hex digest."""
    return hashlib.sha256(data).hexdigest()


def replace_directory(directory: Path, fill: Callable[[Path], None]) -> None:
    """Fills a temporary directory beside `directory` and renames it into place.

    An older directory of that name is replaced. After a crash, the directory there is complete.
    """
    directory = directory.absolute()
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(
        tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".tmp", dir=directory.parent)
    )
    try:
        new = temporary / "new"
        new.mkdir()
        fill(new)
        _sync(new)
        old = temporary / "old"
        if directory.exists():
            os.rename(directory, old)
        try:
            os.rename(new, directory)
        except OSError:
            if old.exists():
                os.rename(old, directory)
            raise
        _sync_folder(directory.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def fill_directory(directory: Path, fill: Callable[[Path], None]) -> None:
    """Fills a directory that is missing or empty; as long as it is not complete, it is no bundle.

    An empty one stays where it is: it may be a mount, a link, or the current directory.

    Raises:
        UserError: If it cannot be written, or is not empty (any more).
    """
    try:
        refuse_filled(directory)
        place = directory.resolve()
        if place.is_dir():
            _fill_empty(place, fill)
        else:
            replace_directory(place, fill)
    except OSError as error:
        where = error.filename or directory
        raise UserError(f"{where}: cannot be written ({error.strerror or error})") from error


def refuse_filled(directory: Path) -> None:
    """Refuses a place that `fill_directory` would have to write over.

    Raises:
        UserError: If it is a file, or a directory that is not empty.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory}: exists and is not an empty directory; choose another one")


def _fill_empty(directory: Path, fill: Callable[[Path], None]) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=".new.", suffix=".tmp", dir=directory))
    try:
        fill(temporary)
        _sync(temporary)
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == CONFIG):
            os.rename(path, directory / path.name)
        _sync_folder(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_checked(path: Path, digest: str | None) -> bytes:
    """Reads a file of a bundle and compares its digest.

    Raises:
        BundleError: If it is missing or differs from the file that was written.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    if digest is not None and sha256(data) != digest:
        raise BundleError(
            f"{path}: damaged or changed since it was exported "
            f"(its SHA-256 is not the one in {CONFIG}); export the bundle again"
        )
    return data


def read_tensors(path: Path, digest: str | None) -> dict[str, Tensor]:
    """Reads safetensors after checking their digest.

    Raises:
        BundleError: If the file is missing, changed or not a safetensors file.
    """
    data = read_checked(path, digest)
    try:
        return load_tensors(data)
    except SafetensorError as error:
        raise BundleError(f"{path}: not a safetensors file ({error})") from error


def read_json_file(path: Path) -> Any:
    """Reads a JSON file of a bundle.

    Raises:
        BundleError: If it is missing or not JSON.
    """
    data = read_checked(path, None)
    try:
        return json.loads(data)
    except ValueError as error:
        raise BundleError(f"{path}: not JSON ({error})") from error


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
