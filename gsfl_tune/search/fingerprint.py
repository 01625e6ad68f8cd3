"""Whether a study goes on as what it was begun as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gsfl_tune.experiment.errors import UserError


def check_fingerprint(name: str, known: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Compares what a study was begun with to what it would be continued with.

    Raises:
        UserError: With one line per difference.
    """
    lines = differences(known, found)
    if lines:
        raise UserError(
            "\n".join(
                [
                    f"study {name}: the experiment is not the one that began this run",
                    *lines,
                    "continue with the run's own experiment.yaml, or begin a new run",
                ]
            )
        )


def differences(known: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What changed between two fingerprints, one line per dotted path."""
    lines = []
    for path in sorted({*known, *found}):
        before, after = known.get(path, "nothing"), found.get(path, "nothing")
        if before != after:
            lines.append(f"  {path}: was {before}, found {after}")
    return lines
