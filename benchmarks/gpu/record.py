"""What a step found: values, and what they had to be."""

from __future__ import annotations

import json
import operator
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Row:
    """One line of a step's table.

    Attributes:
        what: What was measured.
        found: The value, as people read it.
        bar: What it had to be; empty for a value that is only reported.
        met: Whether it was; None where nothing was asked.
        after: Seconds since the step began.
    """

    what: str
    found: str
    bar: str = ""
    met: bool | None = None
    after: float = 0.0


@dataclass
class Record:
    """Collects the rows of a step and writes them after each, so that a killed step keeps them.

    Args:
        path: JSON file.
        timed: Whether bars on times count. Those of a smoke run on a CPU do not.
    """

    path: Path
    timed: bool
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def value(self, what: str, found: str) -> None:
        """Reports a value."""
        self._add(Row(what, found))

    def check(self, what: str, met: bool, found: str, bar: str) -> None:
        """Asserts something; the step goes on."""
        self._add(Row(what, found, bar, bool(met)))

    def at_most(self, what: str, found: float, limit: float) -> None:
        """Asserts that a number is small; NaN is not."""
        self._compare(what, found, limit, operator.le, "at most")

    def rate(self, what: str, found: float, least: float) -> None:
        """Asserts a ratio of speeds on a GPU, and reports it on a CPU."""
        if self.timed:
            self._compare(what, found, least, operator.ge, "at least")
        else:
            self.value(what, f"{found:.3g}")

    def note(self, text: str) -> None:
        """Adds Markdown below the step's table."""
        self.notes.append(text)
        self._write()

    @property
    def failed(self) -> list[Row]:
        """Rows that missed what they had to be."""
        return [row for row in self.rows if row.met is False]

    def _compare(
        self,
        what: str,
        found: float,
        limit: float,
        holds: Callable[[float, float], bool],
        word: str,
    ) -> None:
        self.check(what, holds(found, limit), f"{found:.3g}", f"{word} {limit:g}")

    def _add(self, row: Row) -> None:
        mark = {None: " ", True: "+", False: "!"}[row.met]
        row.after = round(time.monotonic() - self.started, 1)
        print(
            f"{row.after:6.1f} s {mark} {row.what}: {row.found}"
            + (f" ({row.bar})" if row.bar else ""),
            flush=True,
        )
        self.rows.append(row)
        self._write()

    def _write(self) -> None:
        content = {"rows": [asdict(row) for row in self.rows], "notes": self.notes}
        write_json(self.path, content)


def write_json(path: Path, content: Any) -> None:
    """Replaces a JSON file as a whole."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1))
    os.replace(part, path)


def read_json(path: Path) -> Any:
    """What a JSON file holds; an empty mapping where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}
