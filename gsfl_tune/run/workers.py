"""``workers.jsonl``: what each worker did when, one line per period, written by the driver."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from gsfl_tune.run.layout import RunDirectory


class WorkerLog:
    """Appends to and reads the log of workers; lines of earlier drivers stay.

    A line has ``node``, ``worker`` (a process id), ``gpus`` (ids between commas), ``begin`` and
    ``end`` (seconds since 1970, by the driver's clock). A trial has ``study`` and ``trial``, with
    the ``rung`` and ``epoch`` at the end of the period. A retrain has its name as ``job``.

    Args:
        run: The run.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._path = run.workers_file
        self._torn = True

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a period; if the disk is full it is left out, as others report that."""
        # A killed driver may have left half a line.
        start = "\n" if self._torn and self._path.exists() else ""
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(f"{start}{json.dumps(dict(record))}\n")
            self._torn = False

    def read(self) -> list[dict[str, Any]]:
        """Returns all complete lines, oldest first; none if there is no file.

        Each has the number of its driver as ``session``, from 0. A driver that finds the file
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
            except json.JSONDecodeError:  # empty, or cut short when a driver was killed
                session += 1
                continue
            if isinstance(record, dict) and {"begin", "end"} <= record.keys():
                records.append({**record, "session": session})
        return records
