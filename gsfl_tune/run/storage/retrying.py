"""A storage with retries: failed operations are repeated and reported."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.run.storage.backends.base import Backend
from gsfl_tune.run.storage.backends.remote import open_backend

PATIENCE_VARIABLE = "GSFL_TUNE_STORAGE_PATIENCE"
PATIENCE_SECONDS = 300.0

# Seconds of failures after which they are reported.
WORTH_A_WORD = 2.0
# A storage that does not answer at the start of a run is probably misspelt.
_PROBE_SECONDS = 20.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 15.0

# Errors that waiting does not solve; they end the start of a run at once.
_FINAL = {
    "NO_SUCH_BUCKET": "the bucket does not exist there",
    "ACCESS_DENIED": "access was denied; do the credentials allow to list, read, write, delete?",
    "INVALID_ACCESS_KEY_ID": "the access key is unknown there",
    "SIGNATURE_DOES_NOT_MATCH": "the secret key is wrong",
    "UNRECOGNIZED_CLIENT": "the credentials are unknown there",
    "INVALID_CLIENT_TOKEN_ID": "the credentials are unknown there",
    "EXPIRED_TOKEN": "the credentials have expired",
    "MISSING_AUTHENTICATION_TOKEN": "there are no credentials (AWS_ACCESS_KEY_ID, a role, ...)",
    "Bucket '": "the bucket does not exist there",
    "Unable to locate credentials": "there are no credentials",
    "HTTP response code 403": "access was denied; are there credentials in the environment?",
    "HTTP response code 401": "access was denied; are there credentials in the environment?",
}

Answer = TypeVar("Answer")


class Storage:
    """Reads and writes objects by name, and repeats failed operations with back-off.

    Many threads may use it.

    Args:
        backend: Access to the objects.
        url: Name for messages.
        patience: Seconds of failed attempts after which an operation fails.

    Attributes:
        patience: As above; can be changed at any time.
        hopeless: Called before every repetition; true ends the attempts at once.
    """

    def __init__(self, backend: Backend, url: str, *, patience: float = PATIENCE_SECONDS) -> None:
        self._backend = backend
        self.url = url
        self.patience = patience
        self.hopeless: Callable[[], bool] = lambda: False
        self._troubles = Troubles()

    def put(self, name: str, data: bytes) -> None:
        """Writes an object.

        Raises:
            EnvironmentProblem: If the storage did not accept it within `patience`.
        """
        self._persist(f"writing {name}", "write", lambda: self._backend.put(name, data))

    def get(self, name: str) -> bytes | None:
        """Reads an object; None if there is none. Raises as `put` does."""
        return self._persist(f"reading {name}", "read", lambda: self._backend.get(name))

    def list(self, prefix: str = "") -> dict[str, int]:
        """Returns the bytes of every object below a folder, by name. Raises as `put` does."""
        return self._persist(f"listing {prefix}", "read", lambda: self._backend.list(prefix))

    def delete(self, name: str) -> None:
        """Removes an object, if it exists. Raises as `put` does."""
        self._persist(f"deleting {name}", "write", lambda: self._backend.delete(name))

    def probe(self) -> dict[str, int]:
        """Lists and writes once, so that errors that waiting does not solve appear at once.

        Returns:
            All objects.

        Raises:
            UserError: For a bucket that does not exist, credentials that are refused.
            EnvironmentProblem: When the storage does not answer.
        """
        try:
            found = self._backend.list("")
            self._backend.put("probe", b"gsfl-tune was here\n")
            self._backend.delete("probe")
            return found
        except OSError as error:
            reason = final_reason(error)
            if reason:
                raise UserError(f"storage {self.url}: {reason} ({_short(error)})") from error
        patience, self.patience = self.patience, min(self.patience, _PROBE_SECONDS)
        try:
            found = self.list("")
            self.put("probe", b"gsfl-tune was here\n")
            self.delete("probe")
        finally:
            self.patience = patience
        return found

    def attempt(self, call: Callable[[Backend], Answer]) -> Answer:
        """Tries a call once, for calls that will be repeated anyway.

        Raises:
            OSError: When the storage does not answer.
        """
        return call(self._backend)

    @property
    def away_seconds(self) -> float:
        """Returns for how many seconds in total the storage has not answered."""
        return self._troubles.seconds

    def news(self) -> str | None:
        """Returns what went wrong since the last call; None if nothing worth reporting did."""
        text = self._troubles.news()
        return None if text is None else f"storage {self.url} {text}"

    def _persist(self, what: str, kind: str, call: Callable[[], Answer]) -> Answer:
        since: float | None = None
        pause = _FIRST_PAUSE
        while True:
            begun = time.monotonic()
            try:
                answer = call()
            except OSError as error:
                now = time.monotonic()
                if since is None:
                    since = now
                self._troubles.failed(kind, _short(error), begun, first=since == now)
                if now - since >= self.patience or self.hopeless():
                    raise EnvironmentProblem(
                        f"storage {self.url}: {what} failed for {now - since:.0f} s: "
                        f"{_short(error)}"
                    ) from error
                # With jitter, so that many trials do not repeat at the same time.
                time.sleep(min(pause * random.uniform(0.5, 1.5), self.patience))
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._troubles.worked()
                return answer


class Troubles:
    """Counts failures over all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None
        self._seconds = 0.0
        self._told = 0.0
        self._repeated = {"read": 0, "write": 0}
        self._error = ""
        self._announced = False

    def failed(self, kind: str, error: str, begun: float, *, first: bool) -> None:
        """Notes that an operation begun at `begun` failed; `first`: for the first time."""
        with self._lock:
            self._error = error
            if first:
                self._repeated[kind] += 1
            if self._since is None:
                # An operation that hangs fails late.
                self._since = begun

    def worked(self) -> None:
        """Notes that an operation succeeded."""
        with self._lock:
            if self._since is not None:
                self._seconds += time.monotonic() - self._since
                self._since = None

    @property
    def seconds(self) -> float:
        """Returns the seconds that failed operations took until now or until they succeeded."""
        with self._lock:
            lasting = 0.0 if self._since is None else time.monotonic() - self._since
            return self._seconds + lasting

    def news(self) -> str | None:
        """Returns news worth reporting, or None."""
        with self._lock:
            if self._since is not None:
                lasted = time.monotonic() - self._since
                if self._announced or lasted < WORTH_A_WORD:
                    return None
                self._announced = True
                return f"does not answer ({self._error}); it is asked again and again"
            counts, seconds = dict(self._repeated), self._seconds - self._told
            worth = self._announced or seconds >= WORTH_A_WORD
            if not worth:
                return None
            self._repeated = {"read": 0, "write": 0}
            self._told, self._announced = self._seconds, False
            words = [f"{n} {kind}{'s' * (n != 1)}" for kind, n in counts.items() if n]
            were = "was" if sum(counts.values()) == 1 else "were"
            return (
                f"did not answer for {seconds:.0f} s ({self._error}); "
                f"{' and '.join(words) or 'nothing'} {were} repeated"
            )


def open_storage(url: str, *, create: bool = False, patience: float | None = None) -> Storage:
    """Opens a storage, and waits for it as for any operation.

    Args:
        url: A path or a URL.
        create: Whether to create a path that does not exist.
        patience: Seconds of failed attempts after which an operation fails; default
            ``$GSFL_TUNE_STORAGE_PATIENCE``, else 5 minutes.

    Raises:
        UserError: If nothing can open it.
        EnvironmentProblem: When it does not answer.
    """
    seconds = default_patience() if patience is None else patience
    begun = time.monotonic()
    while True:
        try:
            return Storage(open_backend(url, create=create), url, patience=seconds)
        except OSError as error:
            reason = final_reason(error)
            if reason:
                raise UserError(f"storage {url}: {reason} ({_short(error)})") from error
            if create or time.monotonic() - begun >= seconds:
                raise EnvironmentProblem(f"storage {url}: {_short(error)}") from error
        time.sleep(min(1.0, seconds))


def default_patience() -> float:
    """Returns the seconds of failed attempts after which an operation fails.

    Raises:
        UserError: If the variable is not a number.
    """
    text = os.environ.get(PATIENCE_VARIABLE)
    try:
        seconds = float(text) if text else PATIENCE_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UserError(f"{PATIENCE_VARIABLE}: found '{text}', allowed a number of seconds")
    return seconds


def final_reason(error: OSError) -> str | None:
    """Returns why waiting will not help, or None if it may."""
    text = str(error)
    return next((reason for mark, reason in _FINAL.items() if mark in text), None)


def _short(error: OSError) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
