"""What one node answers about itself.

Sent to the nodes by value, with `gsfl_tune.run.gpus`, since what is installed there is part of the
question: both need the standard library alone, but for a storage, and for data at a URL or with
braces in its path.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import importlib.util
import os
import platform
import re
import resource
import shutil
import socket
import tempfile
import time
import uuid
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gsfl_tune.run.gpus import number, read_gpus

PACKAGES = ("gsfl-tune", "ray", "torch", "torchvision", "timm")
# Of a listing, this many files are compared by their sizes too.
_SIZES = 256
_STORAGE_SECONDS = 15.0


def look(question: dict[str, Any]) -> dict[str, Any]:
    """Answers everything that `gsfl_tune.cluster.doctor.inspection` asks; both are plain JSON.

    Args:
        question: ``node`` (an id), and where they are to be looked at: ``cache`` (a directory),
            ``run`` (see `try_folder`), ``data`` (paths or URLs), ``packages`` (besides `PACKAGES`,
            whose versions count), ``quick`` (leave out what takes more than a hundredth of a
            second).
    """
    answer: dict[str, Any] = {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "open_files": list(resource.getrlimit(resource.RLIMIT_NOFILE)),
        "cpus": os.cpu_count(),
    }
    if not question.get("quick"):
        answer["packages"] = {
            name: _version(name) for name in (*PACKAGES, *question.get("packages", ()))
        }
        answer["code"] = code_digest()
        answer["torch_cuda"] = torch_cuda()
        answer["gpus"] = gpus()
    if question.get("cache"):
        answer["cache"] = try_writing(question["cache"])
    if question.get("run"):
        answer["run"] = try_folder(question["run"], question["node"])
    if question.get("storage"):
        answer["storage"] = try_storage(question["storage"], question["node"])
        # Where nodes that do not see the run directory keep what their trials write.
        answer["scratch"] = try_writing(tempfile.gettempdir())
    answer["data"] = [list_files(path) for path in question.get("data", ())]
    return answer


def now() -> float:
    """Returns the node's clock, seconds since 1970."""
    return time.time()


# --- files ------------------------------------------------------------------------------------


def try_writing(directory: str) -> dict[str, Any]:
    """Writes, reads back and deletes a file in a directory, which is made if need be.

    Returns:
        ``free`` (bytes) and ``error`` (None, or why it cannot be used).
    """
    path = os.path.join(directory, f".probe-{uuid.uuid4().hex}")
    answer: dict[str, Any] = {"path": directory, "free": None, "error": None}
    try:
        os.makedirs(directory, exist_ok=True)
        _write(path, path)
        if _read(path) != path:
            answer["error"] = "a file that was just written has other content"
        os.unlink(path)
        answer["free"] = shutil.disk_usage(directory).free
    except OSError as error:
        answer["error"] = _reason(error)
    return answer


def try_folder(folder: dict[str, Any], node: str) -> dict[str, Any]:
    """Looks whether a folder is the driver's own, and does in it what a search does.

    That is: make, append, rename, read, lock and delete files. What it leaves, ``NODE.seen``, is
    for the driver to look at.

    Args:
        folder: ``path`` and ``token``: the driver wrote ``token`` to ``PATH/driver`` and holds a
            lock on ``PATH/lock``, unless ``without_locks`` says why it could not.
        node: Names the node's own files.

    Returns:
        ``free`` (bytes), ``error`` (None or a reason), ``shared`` (whether the driver's file is
        there), ``locks`` (whether the driver's lock holds here too).
    """
    path = folder["path"]
    answer: dict[str, Any] = {"path": path, "free": None, "error": None}
    answer |= {"shared": False, "locks": None}
    try:
        answer["shared"] = _read(os.path.join(path, "driver")) == folder["token"]
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            answer["error"] = _reason(error)
    if not answer["shared"]:
        # Is it only another directory, or one that could not be used anyway?
        parent = _existing(os.path.dirname(path))
        answer["error"] = answer["error"] or try_writing(parent)["error"]
        return answer
    mine, other = os.path.join(path, f"{node}.seen"), os.path.join(path, f"{node}.new")
    try:
        _write(other, folder["token"])
        with open(other, "a", encoding="utf-8") as file:
            file.write(node)
        os.replace(other, mine)
        if _read(mine) != folder["token"] + node:
            answer["error"] = "a file that was just written has other content"
        _write(other, "")
        os.unlink(other)
        if not folder.get("without_locks"):
            answer["locks"] = _is_locked(os.path.join(path, "lock"))
        answer["free"] = shutil.disk_usage(path).free
    except OSError as error:
        answer["error"] = _reason(error)
    return answer


def try_storage(storage: dict[str, Any], node: str) -> dict[str, Any]:
    """Reads what the driver has put into a storage; writes, reads back and deletes an object.

    Args:
        storage: ``path`` (or URL) and ``token``: the driver wrote ``token`` to ``preflight-token``.
        node: Names the node's own object.

    Returns:
        ``error`` (None or a reason), ``shared`` (whether the driver's object is there) and
        ``unknown`` (whether this package is missing or too old there to look).
    """
    answer: dict[str, Any] = {"path": storage["path"], "shared": False, "error": None}
    answer["unknown"] = False
    name, token = f"preflight-{node}", storage["token"].encode()
    try:
        from gsfl_tune.run.storage import open_storage

        opened = open_storage(storage["path"], patience=_STORAGE_SECONDS)
        answer["shared"] = opened.get("preflight-token") == token
        opened.put(name, token)
        if opened.get(name) != token:
            answer["error"] = "an object that was just written has other content"
        opened.delete(name)
    except Exception as error:
        answer["unknown"] = _lacks_us(error)
        answer["error"] = None if answer["unknown"] else str(error) or type(error).__name__
    return answer


def list_files(path: str) -> dict[str, Any]:
    """Returns how many files are there, and a digest of their names and of the sizes of some.

    Args:
        path: A file, a folder, a pattern of files, or a URL. Hidden files are left out.

    Returns:
        ``files``, ``digest``, ``error`` (None or a reason) and ``unknown``, see `try_storage`.
    """
    answer: dict[str, Any] = {"path": path, "files": None, "digest": None, "error": None}
    answer["unknown"] = False
    try:
        sizes = _remote(path) if "://" in path else _all_local(path)
    except OSError as error:
        return answer | {"error": _reason(error)}
    except Exception as error:
        if _lacks_us(error):
            return answer | {"unknown": True}
        return answer | {"error": str(error) or type(error).__name__}
    digest = hashlib.blake2b(digest_size=16)
    for name, size in sizes:
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
    return answer | {"files": len(sizes), "digest": digest.hexdigest()}


def _all_local(path: str) -> list[tuple[str, int]]:
    names = [path]
    if "{" in path and not os.path.exists(path):
        from gsfl_tune.experiment.braces import expand_braces

        names = expand_braces(path)
    return [pair for name in names for pair in _local(name)]


def _local(path: str) -> list[tuple[str, int]]:
    if not os.path.exists(path) and re.search(r"[*?\[]", path):
        return [(name, os.path.getsize(name)) for name in sorted(glob.glob(path, recursive=True))]
    if not os.path.isdir(path):
        return [(os.path.basename(path), os.stat(path).st_size)]
    names: list[str] = []
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(path, followlinks=True, onerror=refuse):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        base = os.path.relpath(folder, path)
        names += [os.path.join(base, name) for name in files if not name.startswith(".")]
    names.sort()
    # Looking at each of a million files takes minutes on NFS; names alone are one read a folder.
    step = max(1, len(names) // _SIZES)
    return [
        (name, os.path.getsize(os.path.join(path, name)) if index % step == 0 else -1)
        for index, name in enumerate(names)
    ]


def _remote(url: str) -> list[tuple[str, int]]:
    from gsfl_tune.data.sources import list_url

    return list_url(url)


def _existing(path: str) -> str:
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _is_locked(path: str) -> bool:
    with open(path, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False  # the file system has no locks there
        return False


def _lacks_us(error: Exception) -> bool:
    """Whether this package is missing or another one; what is installed says so anyway."""
    return isinstance(error, ImportError) and (error.name or "").split(".")[0] == "gsfl_tune"


def _reason(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or type(error).__name__}{where}"


# --- what is installed ------------------------------------------------------------------------


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _folder_of(name: str) -> str | None:
    """Where a package is, without importing it."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return os.path.dirname(spec.origin) if spec and spec.origin else None


def code_digest() -> str | None:
    """Returns a digest of this package's own source; None where it is not installed."""
    root = _folder_of("gsfl_tune")
    if root is None:
        return None
    digest = hashlib.blake2b(digest_size=8)
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            if name.endswith(".py"):
                with open(os.path.join(folder, name), "rb") as file:
                    digest.update(name.encode() + b"\0" + file.read())
    return digest.hexdigest()


def torch_cuda() -> str | None:
    """Returns the CUDA that torch was built for, without importing it; None without."""
    root = _folder_of("torch")
    try:
        text = _read(os.path.join(root, "version.py")) if root else ""
    except OSError:
        return None
    found = re.search(r"^(?:cuda|hip)\b[^=\n]*= *['\"]([^'\"]+)", text, re.MULTILINE)
    return found[1] if found else None


def gpus() -> list[dict[str, Any]] | None:
    """Returns ``name`` and ``memory`` (bytes) of every GPU; None where nobody can say.

    Of the driver's own tool: a task without GPUs may not see them through torch.
    """
    found = []
    for row in read_gpus() or ():
        mebibytes = number(row["memory.total"])
        memory = None if mebibytes is None else int(mebibytes * 1024**2)
        found.append({"name": row["name"], "memory": memory})
    return found or None
