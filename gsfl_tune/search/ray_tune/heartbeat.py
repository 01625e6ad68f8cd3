"""What workers do, as the driver sees it: a few words for each, through the head of the cluster.

A finetune epoch may take minutes, and results come at rungs only. Meanwhile every worker writes
its record (`gsfl_tune.activity`) into the key-value store that the head of a Ray cluster keeps for
Ray itself, when it has changed and at most about once a second: some hundred bytes, from a thread
that no training waits for. Neither files nor results change, nodes need no directory in common,
and where the store does not answer nothing is shown.
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
# Of a call to the store; a head that does not answer is somebody else's to notice.
_TIMEOUT = 5.0


class Pulse:
    """The worker's side: sends what its process does, in a thread.

    Args:
        say: Sends words, given for tests; default: to the store of the Ray that this process
            belongs to.
    """

    def __init__(self, say: Callable[[bytes, bytes | None], None] | None = None) -> None:
        self._say = say or _put
        self._key: bytes | None = None
        self._thread: threading.Thread | None = None

    def begin(self, channel: str | None, name: str) -> None:
        """Says from now on what this process does, as `name`.

        Args:
            channel: Of the driver, see `Pulses`; None for one that does not listen.
            name: Of the trial or retrain.
        """
        self.end()
        if channel is None:
            return
        self._key = f"{channel}/{name}".encode()
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Says nothing more. The driver forgets by itself what has ended."""
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
    """The driver's side: what its workers said last.

    Asking takes a moment, or seconds where the head is busy: a thread does it.

    Args:
        running: Names of the trials or retrains that run; what others said last is not shown.
        ask: What the store has below a channel, given for tests.

    Attributes:
        channel: For the workers.
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
        """Words by name, in the order in which they began; one that has said nothing starts."""
        return {name: said.text if said else "starting" for name, said in self.states().items()}

    def states(self) -> dict[str, Said | None]:
        """What they said, by name; None for one that has said nothing."""
        return {name: self._found.get(name) for name in self._running()}

    @contextmanager
    def listening(self) -> Iterator[Pulses]:
        """Listens during the block; nothing stays in the store after it."""
        thread = threading.Thread(target=self._listen, name="pulses", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            # What is not removed by then stays: some hundred bytes.
            thread.join(_SECONDS)

    def _listen(self) -> None:
        pause = _SECONDS
        while not self._over.wait(pause):
            try:
                self._found = self._ask(self.channel)
                pause = _SECONDS
            except Exception:
                # A head that is gone is the lifeline's to notice, before Ray hears of a new one.
                pause = _PAUSE
        with suppress(Exception):
            _forget(self.channel)


class TrialPulses(Watcher):
    """What the trials of a study do."""

    def __init__(self) -> None:
        self._running: dict[int, str] = {}
        self._pulses = Pulses(lambda: list(self._running.values()))
        self.channel = self._pulses.channel
        self.states = self._pulses.states
        self.listening = self._pulses.listening

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """Shows it from now on."""
        # Anew, for the display reads it meanwhile.
        self._running = {**self._running, number: f"trial {number}"}

    def ended(self, number: int) -> None:
        """Shows it no more."""
        self._running = {k: name for k, name in self._running.items() if k != number}


@contextmanager
def asked_of_workers(what: str, names: list[str]) -> Iterator[str]:
    """Says that workers do something for the driver in the block, and what they say of it.

    Args:
        what: What, in words.
        names: Of what runs there.

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
        """With what the workers say."""
        assert self.pulses is not None
        latest = self.pulses.latest()
        said = [f"{name} {words}" if len(latest) > 1 else words for name, words in latest.items()]
        return "; ".join([super().text(), *said[:2]])


@contextmanager
def pulse_of(channel: str | None, name: str) -> Iterator[None]:
    """Says what this process does during the block, as `name`."""
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
