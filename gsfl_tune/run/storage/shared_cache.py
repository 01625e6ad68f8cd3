"""Cache entries in a storage: one node of a cluster builds them, the others fetch them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run.storage.address import RunAddress
from gsfl_tune.run.storage.retrying import Storage, open_storage

log = logging.getLogger("gsfl_tune.cache")

# Folder beside the runs; no run has such a name.
FOLDER = ".cache"
_BEAT_SECONDS = 5.0
# Seconds without a heartbeat after which a builder counts as dead and another one builds.
_DEAD_SECONDS = 20.0
_POLL_SECONDS = 0.5
# Of two that begin to build at once, the one that wrote last builds.
_SETTLE_SECONDS = 0.3

Build = Callable[[Path], None]


class StoredCache:
    """Shares cache entries of nodes through a storage.

    A failing storage never fails a build: the node then builds for itself. An entry is used only if
    it matches the digest that its builder wrote.

    Args:
        storage: Storage of the cache.
        beat_seconds: Seconds between two heartbeats of a builder.
        dead_seconds: Seconds without a heartbeat after which a builder counts as dead.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        beat_seconds: float = _BEAT_SECONDS,
        dead_seconds: float = _DEAD_SECONDS,
    ) -> None:
        self._storage = storage
        self._beat_seconds = beat_seconds
        self._dead_seconds = dead_seconds
        self._publishing: list[threading.Thread] = []

    def through(self, path: Path, build: Build) -> Build:
        """Makes a builder that fetches what another node has built, else builds and publishes.

        Args:
            path: The entry in this node's cache; its name changes with its content.
            build: Builds the entry on this node.
        """
        name = f"{path.parent.name}/{path.name}"

        def take_or_build(target: Path) -> None:
            lease: _BuilderLease | None = None
            try:
                if self._take(name, target):
                    return
                lease = self._wait_for_turn(name, target)
                if lease is None:
                    return
            except (OSError, UserError) as error:
                log.warning("%s is built here: %s", name, error)
            try:
                build(target)
            except BaseException:
                if lease is not None:
                    lease.close()
                raise
            if lease is not None:
                # Nothing here waits for it. The file is held open, as it may be evicted meanwhile.
                arguments = (name, target.open("rb"), lease)
                thread = threading.Thread(target=self._publish, args=arguments, daemon=True)
                thread.start()
                self._publishing.append(thread)

        return take_or_build

    def settle(self) -> None:
        """Waits until all entries built by this process are published."""
        while self._publishing:
            self._publishing.pop().join()

    def _take(self, name: str, target: Path) -> bool:
        """Copies an entry if it exists and is complete."""
        known = self._storage.attempt(lambda backend: backend.get(f"{name}.json"))
        if known is None:
            return False
        digest = hashlib.sha256()
        with target.open("wb") as file:

            def write(piece: bytes) -> None:
                digest.update(piece)
                file.write(piece)

            found = self._storage.attempt(lambda backend: backend.read_into(name, write))
        with suppress(ValueError, TypeError, KeyError):
            if found and digest.hexdigest() == json.loads(known)["sha256"]:
                return True
        target.unlink()
        log.warning("%s in the storage does not match its digest; it is built again", name)
        return False

    def _wait_for_turn(self, name: str, target: Path) -> _BuilderLease | None:
        """Takes the right to build an entry, or waits for its builder; None: it is here."""
        label = f"{name}.builder"
        seen, since = None, time.monotonic()
        while True:
            held = self._storage.attempt(lambda backend: backend.get(label))
            if held != seen:
                seen, since = held, time.monotonic()
            if held is None or time.monotonic() - since >= self._dead_seconds:
                # It may have been published since the last check.
                if self._take(name, target):
                    return None
                lease = _BuilderLease(self._storage, label, self._beat_seconds)
                if lease.held:
                    return lease
            time.sleep(_POLL_SECONDS)
            if self._take(name, target):
                return None

    def _publish(self, name: str, file: BufferedReader, lease: _BuilderLease) -> None:
        try:
            with file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                file.seek(0)
                self._storage.attempt(lambda backend: backend.write_from(name, file))
                size = os.fstat(file.fileno()).st_size
            content = json.dumps({"sha256": digest, "size": size}).encode()
            self._storage.attempt(lambda backend: backend.put(f"{name}.json", content))
        except (OSError, UserError) as error:
            log.warning("%s could not be shared with other nodes: %s", name, error)
        finally:
            lease.close()


_caches: dict[str, StoredCache] = {}


def open_shared_cache(address: RunAddress | None) -> StoredCache | None:
    """Opens the cache that a run's nodes share, once per process; None if they share none."""
    if address is None or address.cache is None:
        return None
    if address.cache not in _caches:
        try:
            storage = open_storage(address.cache, create=True)
        except UserError as error:
            log.warning("this node builds for itself: %s", error)
            return None
        _caches[address.cache] = StoredCache(storage)
    return _caches[address.cache]


class _BuilderLease:
    """Tells other nodes that this process builds an entry, while it does."""

    def __init__(self, storage: Storage, label: str, beat_seconds: float) -> None:
        self._storage = storage
        self._label = label
        self._token = secrets.token_hex(8)
        self._beat = 0
        self._stop = threading.Event()
        self._say()
        time.sleep(_SETTLE_SECONDS)
        said = storage.attempt(lambda backend: backend.get(label)) or b""
        self.held = self._token.encode() in said
        if self.held:
            self._thread = threading.Thread(target=self._go_on, args=(beat_seconds,), daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(OSError):
            self._storage.attempt(lambda backend: backend.delete(self._label))

    def _go_on(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            with suppress(OSError):
                self._say()

    def _say(self) -> None:
        self._beat += 1
        content = f"{self._token} {self._beat}".encode()
        self._storage.attempt(lambda backend: backend.put(self._label, content))
