"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from _report import table

_MET = {None: "", True: "yes", False: "**no**"}


def page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """One section a step: its table, its notes, and its last lines if it failed.

    Args:
        found: By step, as in ``gpu.json``.
    """
    rows = [[name, step["state"], f"{step['seconds']:.0f}"] for name, step in found.items()]
    parts = ["# On a GPU", table(["step", "state", "seconds"], rows)]
    for name, step in found.items():
        parts.append(f"## {name}")
        if step["rows"]:
            cells = [[r["what"], r["found"], r["bar"], _MET[r["met"]]] for r in step["rows"]]
            parts.append(table(["what", "found", "asserted", "met"], cells))
        parts += step["notes"]
        if step.get("output"):
            parts.append("\n".join(["```", *step["output"], "```"]))
    return "\n\n".join(parts) + "\n"
