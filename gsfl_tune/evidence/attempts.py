"""Parts of the evidence of which each may fail alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from gsfl_tune.activity import activity
from gsfl_tune.evidence.pictures import Picture


class Attempts:
    """Computes parts; reports a failure and records it in place of the part."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self.notes: list[str] = []
        self.failures: list[str] = []

    def __call__(self, what: str, compute: Callable[[], Any]) -> Any:
        """Returns a part, or ``error`` with the reason."""
        try:
            with activity(f"evidence: {what}"):
                part = compute()
            json.dumps(part, allow_nan=False)
        except Exception as error:
            return self.failed(what, error)
        return part

    def failed(self, what: str, error: Exception) -> dict[str, str]:
        """Reports what could not be computed; a missing picture never fails a run."""
        reason = f"{type(error).__name__}: {error}"
        self.failures.append(what)
        self._notice(f"evidence: {what} could not be computed ({reason}); the rest was computed")
        return {"error": reason}


class Drawing:
    """Collects pictures; a kind that fails becomes a note and a notice."""

    def __init__(self, attempt: Attempts, pictures: list[Picture]) -> None:
        self._attempt = attempt
        self._pictures = pictures

    def __call__(self, what: str, draw: Callable[[], list[Picture]]) -> None:
        """Draws the pictures of one kind."""
        try:
            with activity(f"evidence: pictures of {what}"):
                self._pictures += draw()
        except Exception as error:
            reason = self._attempt.failed(f"pictures of {what}", error)["error"]
            self._attempt.notes.append(f"no pictures of {what}: {reason}")
