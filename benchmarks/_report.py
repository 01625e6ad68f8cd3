"""What every benchmark prints: the machine, and a Markdown table that goes to a file too."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
# What stands behind this line of a page was written by hand, and stays when a script writes it.
NOTES = "<!-- notes -->"


def machine() -> str:
    """CPU, cores, GPU and versions, in one line."""
    import torch

    cpu = platform.processor() or "unknown CPU"
    for line in _lines("lscpu"):
        if line.startswith("Model name:"):
            cpu = line.split(":", 1)[1].strip()
    cores = len(os.sched_getaffinity(0))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    names = ("torch", "torchvision", "timm", "ray", "optuna")
    versions = ", ".join(f"{name} {_version(name)}" for name in names)
    return f"{cpu}, {cores} cores, {gpu}; Python {platform.python_version()}, {versions}"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; numbers come as text."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def publish(name: str, title: str, text: str, *, save: bool = True) -> None:
    """Prints a result, and writes it to ``benchmarks/results/NAME.md``, whose notes are kept."""
    command = " ".join(["python", *_script(sys.argv[0]), *sys.argv[1:]])
    page = f"# {title}\n\n`{command}` on {machine()}\n\n{text.strip()}\n"
    print(page)
    if save:
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"{name}.md"
        _, mark, notes = (file.read_text() if file.exists() else "").partition(f"{NOTES}\n")
        file.write_text(f"{page}\n{mark}{notes}" if mark else page)


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Median with the smallest and the largest value."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):{form}} ({low:{form}} to {high:{form}})"


def _script(path: str) -> list[str]:
    """A script as whoever runs it again calls it, whatever folder the project is in here."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:  # python -m
        return ["-m", spec.name.removesuffix(".__main__")]
    with suppress(ValueError):
        path = str(Path(path).resolve().relative_to(RESULTS.parents[1]))
    return [path]


def _lines(*command: str) -> list[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )
    except (OSError, subprocess.CalledProcessError):
        return []


def _version(name: str) -> str:
    try:
        return version(name)
    except ModuleNotFoundError:
        return "missing"
