"""A watchdog that notices the loss of the cluster's head and ends the driver with a message."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

from gsfl_tune.search.control.interrupt import Interrupt

# A head that keeps its state in Redis may come back. Without it, Ray itself ends the driver after
# 60 s, from within the process and without a message.
PATIENCE_SECONDS = 25.0
_POLL_SECONDS = 2.0
_AWAY_SECONDS = 0.2
# Extra time after the saving time of trials, as calls may hang without a head.
_EXIT_SECONDS = 10.0
_INTERRUPTED = 3


@contextmanager
def lifeline(
    interrupt: Interrupt,
    notice: Callable[[str], None],
    patience: float = PATIENCE_SECONDS,
) -> Iterator[None]:
    """Watches the head of the cluster that this process is connected to.

    When it has not answered for a while, the run is interrupted: live trials save, and the caller
    ends as after Ctrl-C. Calls of Ray may then hang. If the caller does not end in time, the
    process is ended with exit code 3. When another head answers at its address, the process is
    ended at once: the old cluster is unreachable, and Ray itself would abort the process.

    Args:
        interrupt: Interrupt of the run.
        notice: Called with a message, in another thread.
        patience: Seconds without an answer.
    """
    address = ray.get_runtime_context().gcs_address
    session = _session(address)
    over = threading.Event()

    def watch() -> None:
        seen, away = time.monotonic(), False
        # The watchdog must notice a new head before Ray does.
        while not over.wait(_AWAY_SECONDS if away else _POLL_SECONDS):
            answers = _answers(address)
            if answers and away and session is not None:
                # A head that keeps its state in Redis has the same session after a restart.
                now = _session(address)
                if now is not None and now != session:
                    text = said(f"a new head answers at the address of the cluster ({address})")
                    end(text)
                answers = now is not None
            away = not answers
            if answers:
                seen = time.monotonic()
            elif time.monotonic() - seen >= patience:
                lost(f"the head of the cluster ({address}) has not answered for {patience:g} s")
                return

    def said(what: str) -> str:
        text = (
            f"{what}: the search ends here. Nothing finished is lost; start a cluster and "
            "continue with --resume"
        )
        notice(text)
        return text

    def lost(what: str) -> None:
        text = said(what)
        # Faster than a scheduler's SIGKILL: Ray ends the process in half a minute.
        interrupt.end_trials()
        if not interrupt.requested:
            interrupt.request()
        while not interrupt.overdue:
            time.sleep(_POLL_SECONDS)
        time.sleep(_EXIT_SECONDS)
        # If the caller has ended in time, the process is gone by now.
        end(text)

    def end(text: str) -> None:
        print(text, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_INTERRUPTED)

    # An address that only the cluster itself can reach cannot be watched.
    if _answers(address):
        threading.Thread(target=watch, name="lifeline", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _session(address: str) -> bytes | None:
    """Returns the session name of the head since its first start; None if unknown."""
    try:
        from ray._private import ray_constants
        from ray._raylet import GcsClient  # type: ignore[attr-defined]

        found: bytes | None = GcsClient(address=address).internal_kv_get(
            b"session_name", ray_constants.KV_NAMESPACE_SESSION, timeout=_POLL_SECONDS
        )
    except Exception:
        # Another token, a head that is still starting, or a Ray version with another interface.
        return None
    return found


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_POLL_SECONDS):
            return True
    except OSError:
        return False
