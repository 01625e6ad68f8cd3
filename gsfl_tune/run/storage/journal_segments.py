"""The journal in a storage: published in pieces, as objects cannot be appended to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run.storage.retrying import Storage

FOLDER = "journal"
# This many pieces of a level are merged into one of the next. So a journal of any length has a
# few dozen objects, and each byte is written only a few times.
_FAN = 16
_NAME = re.compile(rf"{FOLDER}/(\d+)/(\d+)-(\d+)\.jsonl")


@dataclass(frozen=True, order=True)
class Segment:
    """Names the bytes ``start`` to ``end`` of the journal as an object.

    Attributes:
        term: Number of the driver that wrote it. Late writes of older drivers are not read.
        start: First byte.
        end: Byte after the last.
        level: How many times it was merged.
    """

    term: int
    start: int
    end: int
    level: int = 0

    @property
    def name(self) -> str:
        """Returns the name of the object."""
        return f"{FOLDER}/{self.term:05}/{self.start:012}-{self.end:012}.jsonl"


def find_segments(names: dict[str, int]) -> list[Segment]:
    """Returns the segments among the names of a storage, those of the newest term only."""
    matches = [match for name in names if (match := _NAME.fullmatch(name))]
    found = [Segment(*(int(each) for each in match.groups())) for match in matches]
    newest = max((segment.term for segment in found), default=0)
    return sorted(segment for segment in found if segment.term == newest)


def read_journal(storage: Storage, segments: list[Segment]) -> bytes:
    """Reads and joins segments.

    Raises:
        UserError: When a piece is missing.
        EnvironmentProblem: When the storage does not answer.
    """
    data = bytearray()
    # Of two with the same start the longer one: merged pieces may still exist.
    for segment in sorted(segments, key=lambda each: (each.start, -each.end)):
        if segment.end <= len(data):
            continue
        piece = storage.get(segment.name) if segment.start <= len(data) else None
        if piece is None or len(piece) != segment.end - segment.start:
            raise UserError(
                f"storage {storage.url}: the journal has a hole at byte {len(data)} "
                f"({segment.name} is next); the run cannot be resumed from there"
            )
        data += piece[len(data) - segment.start :]
    return bytes(data)


class JournalPublisher:
    """Publishes new lines of a journal file.

    Args:
        storage: Storage of the run.
        path: The journal.
        before: Segments of earlier drivers; the first piece replaces them.
    """

    def __init__(self, storage: Storage, path: Path, before: list[Segment]) -> None:
        self._storage = storage
        self._path = path
        self._before = before
        self._term = max((segment.term for segment in before), default=0) + 1
        self._segments: list[Segment] = []

    @property
    def published(self) -> int:
        """Returns how many bytes of the journal are in the storage."""
        return self._segments[-1].end if self._segments else 0

    def publish(self) -> None:
        """Publishes new complete lines.

        Raises:
            EnvironmentProblem: When the storage does not take them.
        """
        start = self.published
        data = self._read(start)
        if not data:
            return
        segment = Segment(self._term, start, start + len(data))
        self._storage.put(segment.name, data)
        self._segments.append(segment)
        # The first piece of a driver is the whole journal.
        before, self._before = self._before, []
        for old in before:
            self._storage.delete(old.name)
        self._merge()

    def _merge(self) -> None:
        while True:
            last = self._segments[-_FAN:]
            if len(last) < _FAN or len({segment.level for segment in last}) > 1:
                return
            start, end = last[0].start, last[-1].end
            merged = Segment(self._term, start, end, last[0].level + 1)
            self._storage.put(merged.name, self._read(start, end))
            self._segments[-_FAN:] = [merged]
            for old in last:
                self._storage.delete(old.name)

    def _read(self, start: int, end: int | None = None) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(start)
                data = file.read() if end is None else file.read(end - start)
        except FileNotFoundError:
            return b""
        return data[: data.rfind(b"\n") + 1]
