"""The driver's copy of a run in a storage: changes are published, missing files fetched."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gsfl_tune.run.atomic import write_bytes
from gsfl_tune.run.checkpoints import discard
from gsfl_tune.run.layout import CHECKPOINT_FILE, EPOCHS_FILE, JOURNAL_FILE, RunDirectory
from gsfl_tune.run.storage import driver_lease as leases
from gsfl_tune.run.storage.address import INTERRUPT, RunAddress, local_path, run_url
from gsfl_tune.run.storage.journal_segments import (
    FOLDER,
    JournalPublisher,
    find_segments,
    read_journal,
)
from gsfl_tune.run.storage.own_files import begins, is_result, may_go, own_files, states
from gsfl_tune.run.storage.retrying import Storage, open_storage
from gsfl_tune.run.storage.shared_cache import FOLDER as CACHE
from gsfl_tune.run.storage.worker_copy import MARK, stored_epochs, stored_params

PUBLISH_SECONDS = 1.0
# Seconds between two copies of a file that changes all the time. Copying also takes at most a
# thirtieth of the time.
_AGAIN_SECONDS, _AGAIN_FACTOR = 5.0, 30.0
# Seconds that a driver which was asked to stop waits for its storage at the end.
_LAST_SECONDS = 30.0
_DISCARD_SECONDS = 10.0
_THREADS = 8

_WORKERS = ("trials/", "control/", "finals/")
_OWN_OBJECTS = (leases.NAME, INTERRUPT, "probe")


class DriverCopy:
    """Keeps a copy of a run in a storage.

    The driver works in the run directory. A thread publishes changes about once a second: whole
    files of the driver, and the journal in pieces. Files of trials are published by their workers.

    Args:
        storage: Path or URL of the storage.
        run: The run directory; its lock is held.
        name: The experiment's name.
        shared_cache: Whether nodes share cache entries.
        notice: Called with a message when the driver has to wait.
        lease: Makes the lease.

    Raises:
        UserError: When the storage cannot be opened, refuses, or another driver has the run.
        EnvironmentProblem: When it does not answer.
    """

    def __init__(
        self,
        storage: str,
        run: RunDirectory,
        name: str,
        *,
        shared_cache: bool = False,
        notice: Callable[[str], None] = lambda text: None,
        lease: Callable[..., leases.DriverLease] = leases.DriverLease,
    ) -> None:
        self.url = run_url(storage, name)
        self._run = run
        self.storage: Storage = open_storage(self.url, create=True)
        self.storage.probe()
        cache = run_url(storage, CACHE) if shared_cache else None
        self.address = RunAddress.mark(self.url, run, self.storage.patience, cache)
        self._lease = lease(self.storage, notice=notice)
        try:
            # Another driver may have published until it gave the lease back.
            self._objects = self.storage.list()
        except BaseException:
            self._lease.close()
            raise
        self._segments = find_segments(self._objects)
        self._journal = JournalPublisher(self.storage, run.journal, self._segments)
        self._published: dict[str, tuple[int, int]] = {}
        self._due: dict[str, float] = {}
        # Files in the storage that this driver may have to remove again.
        self._kept = {run.results_file.name} & self._objects.keys()
        self._interrupting = INTERRUPT in self._objects
        self._doomed: dict[str, float] = {}
        self._wanted: dict[Path, None] = {}
        self._failure: Exception | None = None
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage")
        self._work = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # --- beginning and end ----------------------------------------------------------------

    @property
    def has_run(self) -> bool:
        """Returns whether the storage had the run when this driver began."""
        return self._run.manifest_file.name in self._objects

    def journal(self) -> bytes:
        """Returns the journal in the storage.

        Raises:
            UserError: When it is damaged.
            EnvironmentProblem: When the storage does not answer.
        """
        return read_journal(self.storage, self._segments)

    def bring_back(self) -> bool:
        """Brings the run directory up to the state of the storage; where it is ahead, it stays.

        Returns:
            Whether anything was fetched.

        Raises:
            UserError: When the storage's journal is damaged.
            EnvironmentProblem: When the storage does not answer.
        """
        if not self.has_run:
            return False
        stored = self.journal()
        journal = self._run.journal
        local = journal.read_bytes() if journal.exists() else b""
        ahead = bool(local) and local.startswith(stored)
        if not ahead:
            if local and not stored.startswith(local):
                journal.replace(journal.with_name(f"{JOURNAL_FILE}.old"))
            write_bytes(journal, stored)
        old = ahead and self._is_newer()
        names = [name for name in self._objects if self._is_wanted(name, keep=ahead, old=old)]
        list(self._pool.map(self._bring, names))
        self._kept |= {name for name in self._objects if may_go(self._run, name)}
        return not ahead or bool(names)

    def start(self) -> None:
        """Begins to publish, first what only the run directory has, and what it has no more."""
        self._withdraw()
        for folder in _WORKERS:
            for path in sorted((self._run.path / folder).rglob("*")):
                name = self.address.name(path)
                if name not in self._objects and is_result(path):
                    self.storage.put(name, path.read_bytes())
        self._thread = threading.Thread(target=self._publish_on, name="storage", daemon=True)
        self._thread.start()

    def close(self, *, hurry: bool = False) -> None:
        """Publishes the rest and releases the run.

        Args:
            hurry: Whether to wait only briefly, as the run directory has everything.

        Raises:
            EnvironmentProblem: When the storage did not take it.
        """
        self._stop.set()
        if hurry:
            self.storage.patience = min(self.storage.patience, _LAST_SECONDS)
        try:
            if self._thread is not None:
                self._thread.join()
                if self._lease.lost is None:
                    self.storage.hopeless = lambda: False
                    self._publish(everything=True)
        finally:
            self._pool.shutdown()
            self._lease.close()

    # --- files ----------------------------------------------------------------------------

    def want(self, path: Path) -> None:
        """Requests a file that a worker has published; see `settle`."""
        self._wanted[path] = None

    def is_wanted(self, path: Path) -> bool:
        """Returns whether a file was requested and has not arrived."""
        return path in self._wanted

    def settle(self) -> None:
        """Waits for the requested files.

        Raises:
            EnvironmentProblem: When the storage does not answer.
        """
        self.bring(*list(self._wanted))

    def bring(self, *paths: Path) -> None:
        """Copies files that workers have published into the run directory.

        Files that the storage does not have stay as they are.

        Raises:
            EnvironmentProblem: When the storage does not answer.
        """
        list(self._pool.map(lambda path: self._bring(self.address.name(path)), paths))
        for path in paths:
            self._wanted.pop(path, None)

    def discard(self, path: Path) -> None:
        """Removes a worker's file from the storage, after a delay."""
        # The worker may be about to publish it.
        self._doomed[self.address.name(path)] = time.monotonic() + _DISCARD_SECONDS

    def copies(self, folder: Path, file: str) -> dict[Path, int]:
        """Returns the bytes of the workers' copies of a file, by path in the run directory.

        Args:
            folder: A folder of the run directory.
            file: Name of the file in any folder below it.

        Raises:
            EnvironmentProblem: When the storage does not answer.
        """
        found = self.storage.list(self.address.name(folder))
        return {
            self.address.run / name: size
            for name, size in found.items()
            if name.endswith(f"/{file}")
        }

    def epochs(self, directory: Path, key: str) -> bytes | None:
        """Returns ``epochs.jsonl`` of a training from the storage; see `stored_epochs`."""
        return stored_epochs(self.storage, self.address.name(directory), key)

    def params(self, directory: Path) -> tuple[str, dict[str, Any]] | None:
        """Returns key and parameters of a trial from the storage; see `stored_params`."""
        return stored_params(self.storage, self.address.name(directory))

    # --- trouble --------------------------------------------------------------------------

    def news(self) -> str | None:
        """Returns what went wrong since the last call; None if nothing worth reporting did."""
        return self.storage.news()

    def trouble(self) -> str | None:
        """Returns why the run cannot go on; None while it can."""
        if self._lease.lost is not None:
            return str(leases.lost_lease(self.storage, self._lease.lost))
        return None if self._failure is None else str(self._failure)

    # --- inside ---------------------------------------------------------------------------

    def _publish_on(self) -> None:
        while not self._stop.wait(PUBLISH_SECONDS):
            if self._lease.lost is not None:
                return
            try:
                self._publish()
            except Exception as error:
                self._failure = error
                return

    def _publish(self, *, everything: bool = False) -> None:
        with self._work:
            self._publish_interrupt()
            self._journal.publish()
            self._publish_files(everything=everything)
            self.bring(*list(self._wanted))
            for name, due in list(self._doomed.items()):
                if everything or time.monotonic() >= due:
                    self.storage.delete(name)
                    del self._doomed[name]

    def _publish_interrupt(self) -> None:
        asked = self._run.interrupt_file.exists()
        if asked != self._interrupting:
            if asked:
                self.storage.put(INTERRUPT, b"")
            else:
                self.storage.delete(INTERRUPT)
            self._interrupting = asked

    def _publish_files(self, *, everything: bool) -> None:
        results = self._run.results_file.name
        # Results imply that all else is there. So they are listed before the rest and published
        # after it.
        found = states(self.address, [self._run.results_file])
        found = states(self.address, own_files(self._run)) | found
        self._withdraw()
        for name, state in sorted(found.items(), key=lambda item: item[0] == results):
            now = time.monotonic()
            if self._published.get(name) == state:
                continue
            if not everything and now < self._due.get(name, 0.0):
                continue
            try:
                data = (self._run.path / name).read_bytes()
            except FileNotFoundError:
                continue
            self.storage.put(name, data)
            self._published[name] = state
            if may_go(self._run, name):
                self._kept.add(name)
            taken = time.monotonic() - now
            self._due[name] = now + max(_AGAIN_SECONDS, _AGAIN_FACTOR * taken)

    def _withdraw(self) -> None:
        """Deletes files that the run directory had and has no more.

        These are results of a smaller budget (see `Manifest.begin`), or a bundle that is no longer
        the better one.
        """
        for name in sorted(self._kept):
            # If the run directory itself is gone, its copy is all that is left.
            if not (self._run.path / name).exists() and self.address.is_here:
                self.storage.delete(name)
                self._kept.discard(name)
                self._published.pop(name, None)

    def _is_newer(self) -> bool:
        """Returns whether a driver began here and nothing of it was published.

        What it removed is still in the storage then.
        """
        manifest = self._run.manifest_file
        local = manifest.read_bytes() if manifest.exists() else None
        here, there = begins(local), begins(self.storage.get(manifest.name))
        return here != there[: len(here)]

    def _is_wanted(self, name: str, *, keep: bool, old: bool) -> bool:
        first, _, rest = name.partition("/")
        if name in _OWN_OBJECTS or first == FOLDER:
            return False
        last = name.rpartition("/")[2]
        if rest and (last in (CHECKPOINT_FILE, MARK) or last.startswith("events.out.tfevents.")):
            return False
        path = local_path(self._run.path, name)
        if not path.exists():
            return not (old and may_go(self._run, name))
        here, there = path.stat().st_size, self._objects[name]
        if keep:
            return last == EPOCHS_FILE and there > here
        return not rest or there != here

    def _bring(self, name: str) -> None:
        path = local_path(self._run.path, name)
        data = self.storage.get(name)
        if data is None:
            return
        if path.exists() and path.read_bytes() == data:
            return
        if path.name == EPOCHS_FILE:
            # Of the epochs that were here.
            discard(path.with_name(CHECKPOINT_FILE))
        write_bytes(path, data)
