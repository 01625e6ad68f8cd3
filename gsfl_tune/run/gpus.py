"""Properties and use of this machine's GPUs, from NVIDIA's driver."""

from __future__ import annotations

import shutil
import subprocess

_FIELDS = ("index", "uuid", "name", "memory.total", "memory.used", "utilization.gpu")
_SECONDS = 20


def read_gpus() -> list[dict[str, str]] | None:
    """Returns one mapping per GPU, with the names of ``nvidia-smi --query-gpu``; memory in MiB.

    Lists all GPUs of the machine or container, including those that ``CUDA_VISIBLE_DEVICES`` hides.

    Returns:
        None if there is no ``nvidia-smi`` or it fails.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            query, capture_output=True, text=True, timeout=_SECONDS, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return [dict(zip(_FIELDS, row, strict=True)) for row in rows if len(row) == len(_FIELDS)]


def number(text: str) -> float | None:
    """Parses a number of ``nvidia-smi``; None for ``[N/A]`` and the like."""
    try:
        return float(text)
    except ValueError:
        return None
