"""The nodes of a cluster as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from gsfl_tune.cluster.doctor.findings import Node
from gsfl_tune.cluster.doctor.inspection import Inspection
from gsfl_tune.experiment.units import gibibytes

_WIDTH = 80
_LEAST_NAME = 12
_HEAD = ("node", "run dir", "data", "versions", "CPUs", "GPUs", "files", "free", "clock")


def node_table(inspection: Inspection) -> str:
    """Draws one row a node in 80 columns; ``-`` was not asked, ``?`` not answered."""
    rows = [_HEAD, *(_row(node, inspection) for node in inspection.nodes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    rest = sum(widths[1:]) + 2 * (len(_HEAD) - 1)
    widths[0] = min(widths[0], max(_LEAST_NAME, _WIDTH - rest))
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    name = row[0] if len(row[0]) <= widths[0] else "…" + row[0][1 - widths[0] :]
    cells = [name.ljust(widths[0])]
    cells += [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
    return "  ".join(cells)


def _row(node: Node, inspection: Inspection) -> tuple[str, ...]:
    answer = node.answer
    cpus = f"{node.cpus:g}"
    if answer is None:
        return (node.name, "?", "?", "?", cpus, str(node.gpus), "?", "?", "?")
    run = answer.get("storage") or answer.get("run")
    run_text = "-"
    if run and run.get("unknown"):
        run_text = "?"
    elif run:
        run_text = "shared" if run["shared"] and not run["error"] else "no"
        if len(inspection.nodes) == 1 and run_text == "shared":
            run_text = "good"
    data = answer["data"]
    broken = any(entry["error"] for entry in data)
    unseen = any(entry["unknown"] for entry in data)
    data_text = "no" if broken else "?" if unseen else "-"
    if data and not (broken or unseen):
        data_text = str(sum(entry["files"] for entry in data))
    here = [finding.text for finding in inspection.problems if finding.node == node.name]
    other = any("the driver has" in text and " files in " not in text for text in here)
    other = other or any("gsfl-tune" in text for text in here)
    folders = [answer.get("run"), answer.get("cache")]
    free = [entry["free"] for entry in folders if entry and entry["free"]]
    return (
        node.name,
        run_text,
        data_text,
        "other" if other else "same",
        cpus,
        _gpus(node),
        str(answer["open_files"][0]) if answer["open_files"][0] >= 0 else "any",
        gibibytes(min(free)) if free else "-",
        "?" if node.skew is None else f"{node.skew:+.2f}",
    )


def _gpus(node: Node) -> str:
    if node.gpus == 0:
        return "0"
    known = (node.answer or {}).get("gpus")
    memory = [gpu["memory"] for gpu in known or () if gpu["memory"]]
    # What Ray counts, and the smallest memory of what the machine has.
    return f"{node.gpus}x{gibibytes(min(memory))}" if memory else f"{node.gpus}x?"
