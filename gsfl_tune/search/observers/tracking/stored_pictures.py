"""Pictures of trials that ran without the run directory: workers left them in the storage."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run.storage import Storage, open_storage, run_url

EVENTS = "events.out.tfevents."
# A user who waits for a table is less patient than a search.
_PATIENCE = 10.0


class StoredPictures:
    """Finds the pictures among the events in the storage of a run.

    The storage is opened only when the first picture is requested.

    Args:
        experiment: Names the storage.
        notice: Called once when the storage does not answer; pictures are then left out.
    """

    def __init__(self, experiment: Experiment, notice: Callable[[str], None]) -> None:
        storage = experiment.defaults().storage
        self._url = None if storage is None else run_url(storage, experiment.name)
        self._notice = notice
        self._storage: Storage | None = None
        self._names: list[str] = []

    def of(self, directory: str) -> list[Any]:
        """Returns events with a picture, of one trial.

        Args:
            directory: Directory of the trial, in the run directory.
        """
        if self._url is None:
            return []
        try:
            if self._storage is None:
                self._storage = open_storage(self._url, patience=_PATIENCE)
                self._names = [name for name in self._storage.list() if EVENTS in name]
            found: dict[int, Any] = {}
            for name in sorted(self._names):
                folder, _, file = name.rpartition("/")
                if folder == directory and file.startswith(EVENTS):
                    data = self._storage.get(name) or b""
                    # If a trial continued elsewhere, the later file counts.
                    found |= {event.step: event for event in picture_events(data)}
            return [found[step] for step in sorted(found)]
        except UserError as error:
            self._url = None
            self._notice(f"{error}; trials that ran elsewhere have no confusion matrices")
            return []


def picture_events(data: bytes) -> Iterator[Any]:
    """Yields events with a picture, from the content of a TensorBoard file.

    An incomplete last record is ignored.
    """
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event

    place = 0
    while place + 12 <= len(data):
        # TFRecord: length, its checksum, the record, its checksum.
        (length,) = struct.unpack_from("<Q", data, place)
        begin, place = place + 12, place + 16 + length
        if place > len(data):
            return
        try:
            event = Event.FromString(data[begin : begin + length])
        except DecodeError:
            return
        if any(value.HasField("image") for value in event.summary.value):
            yield event
