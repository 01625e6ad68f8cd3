"""Reports of workers to the driver, sent through the head of the cluster.

A finetune epoch may take minutes, and results come at rungs only. Meanwhile every worker writes
its record (`gsfl_tune.activity`) into the key-value store of the Ray head, when it has changed and
at most about once a second. A record has some hundred bytes and is sent by a thread that no
training waits for. Files and results do not change, nodes need no common directory, and nothing is
shown where the store does not answer.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from gsfl_tune.activity import Activity, begin, current, end
from gsfl_tune.search.observers.base import Said, Watcher

_NAMESPACE = b"gsfl_tune"
_SECONDS = 1.0
_PAUSE = 10.0
# Timeout of a call to the store; other code reports a head that does not answer.
_TIMEOUT = 5.0


class Pulse:
    """Sends, on the worker's side, what its process does, in a thread.

    Args:
        say: Sends a record, replaced in tests; default: to the store of the Ray that this
            process belongs to.
    """

    def __init__(self, say: Callable[[bytes, bytes | None], None] | None = None) -> None:
        self._say = say or _put
        self._key: bytes | None = None
        self._thread: threading.Thread | None = None

    def begin(self, channel: str | None, name: str) -> None:
        """Starts to report what this process does, as `name`.

        Args:
            channel: Channel of the driver, see `Pulses`; None for a driver that does not listen.
            name: Name of the trial or retrain.
        """
        self.end()
        if channel is None:
            return
        self._key = f"{channel}/{name}".encode()
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Stops the reports. The driver drops ended trials by itself."""
        self._key = None

    def _beat(self) -> None:
        sent: tuple[bytes, str] | None = None
        while True:
            key, one = self._key, current()
            if key is not None and one is not None:
                rest = None if one.before is not None else one.rest
                said = json.dumps([one.text(), one.epochs, rest and round(rest, 1)])
                if (key, said) != sent:
                    with suppress(Exception):
                        self._say(key, said.encode())
                        sent = key, said
            time.sleep(_SECONDS)


class Pulses:
    """Holds, on the driver's side, the last reports of its workers.

    A request takes a moment, or seconds on a busy head, so a thread makes it.

    Args:
        running: Names of the running trials or retrains; reports of others are not shown.
        ask: Reads the records below a channel from the store, replaced in tests.

    Attributes:
        channel: Channel for the workers.
    """

    def __init__(
        self,
        running: Callable[[], list[str]],
        ask: Callable[[str], Mapping[str, Said]] | None = None,
    ) -> None:
        self.channel = secrets.token_hex(8)
        self._running = running
        self._ask = ask or _read
        self._found: Mapping[str, Said] = {}
        self._over = threading.Event()

    def latest(self) -> dict[str, str]:
        """Returns texts by name, in the order of their start; without a report: a start text."""
        return {name: said.text if said else "starting" for name, said in self.states().items()}

    def states(self) -> dict[str, Said | None]:
        """Returns the last reports by name; None before the first report."""
        return {name: self._found.get(name) for name in self._running()}

    @contextmanager
    def listening(self) -> Iterator[Pulses]:
        """Listens during the block; afterwards the store keeps nothing."""
        thread = threading.Thread(target=self._listen, name="pulses", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            # Records that are not removed by then stay: some hundred bytes.
            thread.join(_SECONDS)

    def _listen(self) -> None:
        pause = _SECONDS
        while not self._over.wait(pause):
            try:
                self._found = self._ask(self.channel)
                pause = _SECONDS
            except Exception:
                # The lifeline must notice a lost head before Ray sees a new one.
                pause = _PAUSE
        with suppress(Exception):
            _forget(self.channel)


class TrialPulses(Watcher):
    """Collects what the trials of a study do."""

    def __init__(self) -> None:
        self._running: dict[int, str] = {}
        self._pulses = Pulses(lambda: list(self._running.values()))
        self.channel = self._pulses.channel
        self.states = self._pulses.states
        self.listening = self._pulses.listening

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """Shows the trial from now on."""
        # A new mapping, as the display reads the old one meanwhile.
        self._running = {**self._running, number: f"trial {number}"}

    def paused(self, number: int) -> None:
        """Removes the trial from the display."""
        self.ended(number)

    def ended(self, number: int) -> None:
        """Removes the trial from the display."""
        self._running = {k: name for k, name in self._running.items() if k != number}


@contextmanager
def asked_of_workers(what: str, names: list[str]) -> Iterator[str]:
    """Shows that workers do a task for the driver in the block, with their reports.

    Args:
        what: The task, in words.
        names: Names of the workers' tasks.

    Yields:
        The channel for `pulse_of`.
    """
    pulses = Pulses(lambda: names)
    one = begin(_OfWorkers(what, pulses=pulses))
    try:
        with pulses.listening():
            yield pulses.channel
    finally:
        end(one)


@dataclass(eq=False)
class _OfWorkers(Activity):
    pulses: Pulses | None = None

    def text(self) -> str:
        """Returns the task with the workers' reports."""
        assert self.pulses is not None
        latest = self.pulses.latest()
        said = [f"{name} {words}" if len(latest) > 1 else words for name, words in latest.items()]
        return "; ".join([super().text(), *said[:2]])


@contextmanager
def pulse_of(channel: str | None, name: str) -> Iterator[None]:
    """Reports what this process does during the block, as `name`."""
    pulse = _own()
    pulse.begin(channel, name)
    try:
        yield
    finally:
        pulse.end()


_pulse: Pulse | None = None


def _own() -> Pulse:
    global _pulse
    if _pulse is None:
        _pulse = Pulse()
    return _pulse


def _client() -> Any:
    from ray.experimental.internal_kv import internal_kv_get_gcs_client

    client = internal_kv_get_gcs_client()
    if client is None:
        raise ConnectionError("this process is not connected to Ray")
    return client


def _put(key: bytes, value: bytes | None) -> None:
    _client().internal_kv_put(key, value, True, _NAMESPACE, timeout=_TIMEOUT)


def _read(channel: str) -> Mapping[str, Said]:
    client, prefix = _client(), f"{channel}/".encode()
    keys = client.internal_kv_keys(prefix, _NAMESPACE, timeout=_TIMEOUT)
    if not keys:
        return {}
    found = client.internal_kv_multi_get(keys, _NAMESPACE, timeout=_TIMEOUT)
    return {
        key.removeprefix(prefix).decode(): Said(*json.loads(value)) for key, value in found.items()
    }


def _forget(channel: str) -> None:
    _client().internal_kv_del(f"{channel}/".encode(), True, _NAMESPACE, timeout=_TIMEOUT)
