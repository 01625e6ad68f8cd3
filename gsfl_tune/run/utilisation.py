"""``utilisation.json``: how busy the GPUs and slots of a run were, one entry per driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gsfl_tune.run.atomic import read_json, write_json
from gsfl_tune.run.layout import RunDirectory

FORMAT = 1


def read_sessions(run: RunDirectory) -> list[dict[str, Any]]:
    """Reads the measurements of earlier drivers, oldest first; none for another format."""
    try:
        content = read_json(run.utilisation_file)
    except (FileNotFoundError, ValueError):
        return []
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return []
    sessions: list[dict[str, Any]] = content["sessions"]
    return sessions


def write_sessions(run: RunDirectory, sessions: Sequence[Mapping[str, Any]]) -> None:
    """Replaces the file by the sessions and their `summary`."""
    write_json(
        run.utilisation_file,
        {"format": FORMAT, **summary(sessions), "sessions": [dict(each) for each in sessions]},
    )


def summary(sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the use over all drivers, weighted by their time.

    Args:
        sessions: Each has ``seconds`` (of trials and retrains), ``slot_seconds`` (these times the
            slots), ``trial_seconds`` (summed over trials) and ``gpus``. A GPU has ``node``,
            ``gpu``, ``seconds`` (how long it existed) and ``occupied`` (seconds with at least one
            trial). From sampling it has ``samples``, ``busy`` (sum of samples, 0 to 1 each) and
            ``memory`` (largest, bytes).

    Returns:
        ``seconds``; ``slots_busy``: share of the slots' time that trials used, None before the
        first trial; ``gpus``: ``node``, ``gpu``, ``occupied`` (share of its time), ``busy`` (share,
        None if it was not sampled), ``memory``.
    """
    offered = sum(each["slot_seconds"] for each in sessions)
    used = sum(each["trial_seconds"] for each in sessions)
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for session in sessions:
        for gpu in session["gpus"]:
            known = merged.setdefault(
                (gpu["node"], gpu["gpu"]),
                {"seconds": 0.0, "occupied": 0.0, "samples": 0, "busy": 0.0, "memory": None},
            )
            for name in ("seconds", "occupied", "samples", "busy"):
                known[name] += gpu[name]
            known["memory"] = max(known["memory"] or 0, gpu["memory"] or 0) or None
    return {
        "seconds": round(sum(each["seconds"] for each in sessions), 1),
        "slots_busy": _share(used, offered),
        "gpus": [
            {
                "node": node,
                "gpu": gpu,
                "occupied": _share(found["occupied"], found["seconds"]),
                "busy": _share(found["busy"], found["samples"]),
                "memory": found["memory"],
            }
            for (node, gpu), found in sorted(merged.items())
        ],
    }


def _share(part: float, whole: float) -> float | None:
    return None if whole <= 0 else round(min(1.0, part / whole), 4)
