"""Notices when the head of the cluster is gone, and ends the driver while it can still say so."""

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

# A head that keeps its state in Redis may come back; without it, Ray itself ends the driver after
# 60 s, from within and without a word.
PATIENCE_SECONDS = 25.0
_POLL_SECONDS = 2.0
_AWAY_SECONDS = 0.2
# After the time that trials have to save: for what may hang while there is no head.
_EXIT_SECONDS = 10.0
_INTERRUPTED = 3


@contextmanager
def lifeline(
    interrupt: Interrupt,
    notice: Callable[[str], None],
    patience: float = PATIENCE_SECONDS,
) -> Iterator[None]:
    """Watches the head of the cluster that this process is connected to.

    When it has not answered for a while, the run is interrupted: trials that still live save,
    and the caller ends as after Ctrl-C. Calls of Ray may never return then: where the caller does
    not come to its end in time, the process is ended with exit code 3. When another head answers
    at its address, it is ended at once: nothing of the old cluster can be reached any more, and
    Ray itself aborts the process as soon as it hears of it.

    Args:
        interrupt: Of the run.
        notice: Is told what happened, in a thread of its own.
        patience: Seconds without an answer.
    """
    address = ray.get_runtime_context().gcs_address
    session = _session(address)
    over = threading.Event()

    def watch() -> None:
        seen, away = time.monotonic(), False
        # Ray must not hear of a new head first.
        while not over.wait(_AWAY_SECONDS if away else _POLL_SECONDS):
            answers = _answers(address)
            if answers and away and session is not None:
                # A head that keeps its state in Redis is the same one when it is back.
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
        # Sooner than a scheduler's SIGKILL: Ray ends the process in half a minute.
        interrupt.end_trials()
        if not interrupt.requested:
            interrupt.request()
        while not interrupt.overdue:
            time.sleep(_POLL_SECONDS)
        time.sleep(_EXIT_SECONDS)
        # The caller, where it came to its end, has ended the process by now.
        end(text)

    def end(text: str) -> None:
        print(text, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_INTERRUPTED)

    # An address that only the cluster itself can reach says nothing.
    if _answers(address):
        threading.Thread(target=watch, name="lifeline", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _session(address: str) -> bytes | None:
    """Name of what the head has run since it was first started; None if it does not say."""
    try:
        from ray._private import ray_constants
        from ray._raylet import GcsClient  # type: ignore[attr-defined]

        found: bytes | None = GcsClient(address=address).internal_kv_get(
            b"session_name", ray_constants.KV_NAMESPACE_SESSION, timeout=_POLL_SECONDS
        )
    except Exception:
        # Another token, a head that is still starting, a Ray that has moved this.
        return None
    return found


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_POLL_SECONDS):
            return True
    except OSError:
        return False
