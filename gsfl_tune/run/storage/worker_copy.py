"""The directory of a training on its node, and its copy in the storage."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.run.atomic import write_bytes
from gsfl_tune.run.layout import CHECKPOINT_FILE, EPOCHS_FILE, INTERRUPT_FILE
from gsfl_tune.run.ownership import OwnershipLost
from gsfl_tune.run.storage.address import INTERRUPT, RunAddress
from gsfl_tune.run.storage.retrying import Storage, open_storage

# Identifies the configuration of a directory. A trial number can be used twice if the last second
# of a journal was lost.
MARK = "trial.json"

_POLL_SECONDS = 1.0

_storages: dict[tuple[str, float], Storage] = {}


class Signal(Protocol):
    """Tells whether something exists, such as a path."""

    def exists(self) -> bool:
        """Returns whether it exists."""
        ...


def storage_of(address: RunAddress) -> Storage:
    """Opens the storage of a run, once per process.

    Raises:
        EnvironmentProblem: If this node cannot open a storage that the driver could open.
    """
    key = address.url, address.patience
    if key not in _storages:
        try:
            _storages[key] = open_storage(address.url, patience=address.patience)
        except UserError as error:
            raise EnvironmentProblem(str(error)) from error
    return _storages[key]


class WorkerCopy:
    """Keeps the directory of a training and its copy in a storage.

    Args:
        address: The run.
        directory: Directory of the training in the driver's run directory.
        key: Digest of the training's configuration. Files of another training under the same name
            are removed.
        params: Parameters of a trial by name, kept with the key for a study that lost them.

    Attributes:
        directory: Where the training writes: the driver's directory where this process sees it,
            else one of this node.

    Raises:
        EnvironmentProblem: When the storage does not answer.
    """

    def __init__(
        self,
        address: RunAddress,
        directory: Path,
        key: str,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self._address = address
        self._storage = storage_of(address)
        self._name = address.name(directory)
        self._here = address.is_here
        self._key = key
        self._params = params
        self._owner = secrets.token_hex(8)
        self.directory = directory if self._here else _scratch(address) / self._name
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._wanted = self._done = 0
        self._failure: Exception | None = None
        self._closed = False
        self.interrupt: Signal = InterruptSignal(address, self._storage, here=self._here)
        try:
            self._fetch()
        except UserError as error:
            # Whatever the error is, the configuration did not cause it.
            raise EnvironmentProblem(str(error)) from error
        self._thread = threading.Thread(target=self._upload_on, name="storage", daemon=True)
        self._thread.start()

    def saved(self) -> None:
        """Notes a new checkpoint; a thread publishes it."""
        with self._changed:
            self._wanted += 1
            self._changed.notify_all()

    def finish(self, *names: str) -> None:
        """Waits until all is published, `names` (files of the directory) last and in order.

        What is reported after this call is not lost.

        Raises:
            EnvironmentProblem: When the storage does not take it.
            OwnershipLost: When another process has taken the training over.
        """
        self._raise()
        self._check()
        self._put_epochs()
        with self._changed:
            wanted = self._wanted
            self._changed.wait_for(lambda: self._done >= wanted or self._failure is not None)
        self._raise()
        for name in names:
            self._put(name, self.directory / name)

    def discard(self, name: str) -> None:
        """Removes a file of the directory from the storage, after `finish`.

        Raises:
            EnvironmentProblem: When the storage does not answer.
        """
        self._storage.delete(f"{self._name}/{name}")

    def close(self) -> None:
        """Leaves the directory; TensorBoard events are published if the storage accepts them."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        with suppress(OSError, UserError):
            for path in self.directory.glob("events.out.tfevents.*"):
                data = path.read_bytes()
                name = f"{self._name}/{path.name}"
                self._storage.attempt(lambda backend, n=name, d=data: backend.put(n, d))  # type: ignore[misc]
        if not self._here:
            shutil.rmtree(self.directory, ignore_errors=True)

    def news(self) -> str | None:
        """Returns what went wrong with the storage since the last call."""
        return self._storage.news()

    # --- inside ---------------------------------------------------------------------------

    def _fetch(self) -> None:
        """Fetches the storage's files, unless those here are newer."""
        mark = self._storage.get(f"{self._name}/{MARK}")
        if mark is not None and _read_mark(mark).get("key") != self._key:
            for name in self._storage.list(self._name):
                self._storage.delete(name)
        # From here on, a process believed dead publishes nothing.
        content: dict[str, Any] = {"key": self._key, "owner": self._owner}
        if self._params is not None:
            content["params"] = dict(self._params)
        self._storage.put(f"{self._name}/{MARK}", json.dumps(content).encode())
        if _read_mark(mark).get("key") != self._key:
            if (self.directory / CHECKPOINT_FILE).exists():
                # The run had no storage before.
                self._wanted += 1
            return
        epochs = self._storage.get(f"{self._name}/{EPOCHS_FILE}") or b""
        log, checkpoint = self.directory / EPOCHS_FILE, self.directory / CHECKPOINT_FILE
        if checkpoint.exists() and log.exists() and log.read_bytes().startswith(epochs):
            return
        data = self._storage.get(f"{self._name}/{CHECKPOINT_FILE}")
        checkpoint.unlink(missing_ok=True)
        write_bytes(log, epochs)
        if data is not None:
            write_bytes(checkpoint, data)

    def _upload_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted > self._done or self._closed)
                # Nothing waits for what is not published by now.
                if self._closed or self._failure is not None:
                    return
                wanted = self._wanted
            try:
                self._upload()
            except Exception as error:
                self._failure = error
            with self._changed:
                self._done = wanted
                self._changed.notify_all()

    def _upload(self) -> None:
        self._check()
        # The log goes first: read after the checkpoint, it has all of its epochs.
        try:
            data = (self.directory / CHECKPOINT_FILE).read_bytes()
        except FileNotFoundError:
            return
        self._put_epochs()
        self._storage.put(f"{self._name}/{CHECKPOINT_FILE}", data)

    def _check(self) -> None:
        mark = _read_mark(self._storage.get(f"{self._name}/{MARK}"))
        if mark.get("owner") != self._owner:
            raise OwnershipLost(f"{self._storage.url}: {self._name} was taken over")

    def _put_epochs(self) -> None:
        # Two threads run this; an older log must not replace a newer one.
        with self._lock:
            self._put(EPOCHS_FILE, self.directory / EPOCHS_FILE)

    def _put(self, name: str, path: Path) -> None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return
        self._storage.put(f"{self._name}/{name}", data)

    def _raise(self) -> None:
        if self._failure is not None:
            if isinstance(self._failure, UserError | OwnershipLost):
                raise self._failure
            raise EnvironmentProblem(str(self._failure)) from self._failure


class InterruptSignal:
    """Tells on any node whether the run is asked to stop; never fails.

    Args:
        address: The run.
        storage: Its storage.
        here: Whether this process sees the driver's file. If not, a thread asks the storage at most
            once a second.
    """

    def __init__(self, address: RunAddress, storage: Storage, *, here: bool) -> None:
        self._file = address.run / INTERRUPT_FILE
        self._storage = storage
        self._here = here
        self._found = False
        self._asking: threading.Thread | None = None
        self._asked = 0.0

    def exists(self) -> bool:
        """Returns whether to stop, as known a second ago."""
        if self._here:
            return self._file.exists()
        if self._asking is None or not self._asking.is_alive():
            first = self._asking is None
            if first or time.monotonic() - self._asked >= _POLL_SECONDS:
                self._asked = time.monotonic()
                self._asking = threading.Thread(target=self._ask, daemon=True)
                self._asking.start()
        return self._found

    def _ask(self) -> None:
        with suppress(Exception):
            self._found = self._storage.attempt(lambda backend: backend.get(INTERRUPT)) is not None


def _scratch(address: RunAddress) -> Path:
    digest = hashlib.blake2b(f"{address.url}|{address.run}".encode(), digest_size=8).hexdigest()
    path = Path(tempfile.gettempdir()) / f"gsfl-tune-{os.getuid()}-{digest}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.getuid():
        raise EnvironmentProblem(f"{path}: belongs to somebody else; remove it or set TMPDIR")
    return path


def _read_mark(mark: bytes | None) -> dict[str, Any]:
    try:
        content = json.loads(mark or b"null")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def stored_epochs(storage: Storage, name: str, key: str) -> bytes | None:
    """Returns ``epochs.jsonl`` of a training; None if the storage has none of this configuration.

    Raises:
        EnvironmentProblem: When the storage does not answer.
    """
    if _read_mark(storage.get(f"{name}/{MARK}")).get("key") != key:
        return None
    return storage.get(f"{name}/{EPOCHS_FILE}")


def stored_params(storage: Storage, name: str) -> tuple[str, dict[str, Any]] | None:
    """Returns key and parameters of a trial; None if the storage does not have them.

    Raises:
        EnvironmentProblem: When the storage does not answer.
    """
    mark = _read_mark(storage.get(f"{name}/{MARK}"))
    key, params = mark.get("key"), mark.get("params")
    return (key, params) if isinstance(key, str) and isinstance(params, dict) else None
