"""``workers.jsonl``: which worker was busy with what, one line a stretch, by the driver."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from gsfl_tune.run.layout import RunDirectory


class WorkerLog:
    """Appended to while a run goes; what an earlier driver wrote stays.

    A line has ``node``, ``worker`` (a process id), ``gpus`` (ids between commas), ``begin`` and
    ``end`` (seconds since 1970, by the driver's clock), and either ``study`` and ``trial`` with the
    ``rung`` and ``epoch`` that the stretch ended at, or the name of a retrain as ``job``.

    Args:
        run: The run.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._path = run.workers_file
        self._torn = True

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a stretch. What cannot be written is left out: a full disk is told of elsewhere."""
        # A driver that was killed may have left half a line.
        start = "\n" if self._torn and self._path.exists() else ""
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(f"{start}{json.dumps(dict(record))}\n")
            self._torn = False

    def read(self) -> list[dict[str, Any]]:
        """All whole lines, oldest first; none where there is no file.

        Each has the number of its driver as ``session``, from 0: a driver that finds the file
        begins with a line break, see `append`.
        """
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        records = []
        session = 0
        for line in text.splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # empty, or ended by a driver's death
                session += 1
                continue
            if isinstance(record, dict) and {"begin", "end"} <= record.keys():
                records.append({**record, "session": session})
        return records
