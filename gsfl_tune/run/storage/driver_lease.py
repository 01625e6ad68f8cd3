"""The lease of a run in a storage: an object with a heartbeat, as file locks do not work there."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.run.storage.retrying import Storage

NAME = "driver.json"
BEAT_SECONDS = 10.0
# Seconds without a heartbeat after which a driver counts as dead.
DEAD_SECONDS = 30.0
# Largest expected difference of two machines' clocks, in seconds.
_LONG_AGO = 3600.0
# Of two drivers that take a free lease at once, the last writer gets it.
_SETTLE_SECONDS = 1.0


class DriverLease:
    """Keeps a second driver off a run, on any machine.

    A driver releases the lease when it ends. The lease of a killed driver is free at once for a
    driver on the same machine, and for others after `DEAD_SECONDS` without a heartbeat.

    Args:
        storage: Storage of the run.
        notice: Called with a message when the driver has to wait.
        beat_seconds: Seconds between two heartbeats.
        dead_seconds: Seconds without a heartbeat after which the holder counts as dead.

    Raises:
        UserError: When another driver is alive.
        EnvironmentProblem: When the storage does not answer.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        notice: Callable[[str], None] = lambda text: None,
        beat_seconds: float = BEAT_SECONDS,
        dead_seconds: float = DEAD_SECONDS,
    ) -> None:
        self._storage = storage
        self._dead_seconds = dead_seconds
        self._beat_seconds = beat_seconds
        self._token = secrets.token_hex(8)
        self._beat = 0
        self._lost: str | None = None
        self._stop = threading.Event()
        self._wait_for_holder(notice)
        self._storage.put(NAME, self._content())
        time.sleep(min(_SETTLE_SECONDS, beat_seconds))
        held = self._read()
        if held is not None and held.get("token") != self._token:
            raise self._refusal(held)
        self._thread = threading.Thread(target=self._beat_on, name="storage-lease", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> str | None:
        """Returns who took the lease, in words; None while this driver holds it."""
        return self._lost

    def close(self) -> None:
        """Releases the lease."""
        self._stop.set()
        self._thread.join(timeout=2 * self._beat_seconds)
        if self._lost is None:
            # The next driver waits a little longer.
            with suppress(OSError):
                self._storage.attempt(lambda backend: backend.delete(NAME))

    def _wait_for_holder(self, notice: Callable[[str], None]) -> None:
        held = self._read()
        if held is None or _is_gone(held) or _age(held) > _LONG_AGO:
            return
        if _age(held) < self._dead_seconds / 2 and _is_of_here(held):
            # Its process exists: no need to watch.
            raise self._refusal(held)
        notice(
            f"storage {self._storage.url}: a driver on {held.get('host')} (process "
            f"{held.get('pid')}) did not give the run back; waiting up to "
            f"{self._dead_seconds:.0f} s for a sign of life"
        )
        deadline = time.monotonic() + self._dead_seconds
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self._dead_seconds / 10))
            now = self._read()
            if now is None:
                return
            if now != held:
                raise self._refusal(now)

    def _refusal(self, held: dict[str, Any]) -> UserError:
        return UserError(
            f"storage {self._storage.url}: another search works on this run (host "
            f"{held.get('host')}, process {held.get('pid')}, last sign of life "
            f"{max(0.0, _age(held)):.0f} s ago). Stop it, or, if it is dead, try again: after "
            f"{self._dead_seconds:.0f} s without a sign of life the run is free"
        )

    def _beat_on(self) -> None:
        while not self._stop.wait(self._beat_seconds):
            # Failures of the storage are reported by those that write more.
            with suppress(OSError, ValueError):
                data = self._storage.attempt(lambda backend: backend.get(NAME))
                held = _parse(data)
                if held is not None and held.get("token") != self._token:
                    self._lost = f"host {held.get('host')}, process {held.get('pid')}"
                    return
                self._beat += 1
                content = self._content()
                self._storage.attempt(lambda backend, content=content: backend.put(NAME, content))  # type: ignore[misc]

    def _read(self) -> dict[str, Any] | None:
        return _parse(self._storage.get(NAME))

    def _content(self) -> bytes:
        return json.dumps(
            {
                "token": self._token,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "boot": _boot(),
                "beat": self._beat,
                "time": time.time(),
            }
        ).encode()


def lost_lease(storage: Storage, holder: str) -> EnvironmentProblem:
    """Returns the error of a driver whose run was taken over."""
    return EnvironmentProblem(
        f"storage {storage.url}: another driver ({holder}) has taken this run over, as there was "
        "no sign of life from here for too long"
    )


def _parse(data: bytes | None) -> dict[str, Any] | None:
    try:
        content = json.loads(data or b"null")
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _age(held: dict[str, Any]) -> float:
    try:
        return time.time() - float(held["time"])
    except (KeyError, TypeError, ValueError):
        return 0.0


def _is_of_here(held: dict[str, Any]) -> bool:
    """Returns whether the holder is or was a process that would be visible here."""
    return held.get("host") == socket.gethostname() and held.get("boot") == _boot()


def _is_gone(held: dict[str, Any]) -> bool:
    """Returns whether the holder was a process of this machine that has ended."""
    if not _is_of_here(held):
        return False
    try:
        os.kill(int(held["pid"]), 0)
    except ProcessLookupError:
        return True
    except (KeyError, TypeError, ValueError, OSError):
        return False
    return False


def _boot() -> str:
    """Identifies a machine since its last start, even if two machines have one name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Containers of one machine share its boot id, but not their processes.
        return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""
