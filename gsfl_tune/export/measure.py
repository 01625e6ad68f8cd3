"""What an export costs and gains: accuracy, size and latency, before and after."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from gsfl_tune.activity import activity
from gsfl_tune.export.images import RunImages
from gsfl_tune.export.runtimes import Runtime

BATCHES = (1, 32)
_WARM_UP = 3
_FEWEST, _MOST = 20, 200


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a batch, from decoded squares to logits.

    Attributes:
        batch: Images at once.
        median: Of all runs.
        p95: 95 % of the runs took no longer.
        runs: How many there were.
    """

    batch: int
    median: float
    p95: float
    runs: int


@dataclass(frozen=True)
class Measurement:
    """One row of the table.

    Attributes:
        name: What was measured.
        validation: Accuracy on the validation images.
        test: Accuracy on the test images.
        bytes: Size of the model file.
        latency: For each of `BATCHES`.
    """

    name: str
    validation: float
    test: float
    bytes: int
    latency: list[Latency]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Measurement:
        """The inverse of `to_json`."""
        return cls(**{**content, "latency": [Latency(**each) for each in content["latency"]]})


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """What the CPU calls itself."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def measure(
    name: str, runtime: Runtime, images: RunImages, size: int, seconds: float
) -> Measurement:
    """Measures one model.

    Args:
        name: What it is called.
        runtime: The model; it computes with as many threads as it was given.
        images: Of the run.
        size: Bytes of its file.
        seconds: See `latency`.
    """
    squares = images.examples(max(BATCHES))
    return Measurement(
        name=name,
        validation=images.accuracy(runtime, "validation"),
        test=images.accuracy(runtime, "test"),
        bytes=size,
        latency=[latency(runtime, squares, batch, seconds) for batch in BATCHES],
    )


def latency(runtime: Runtime, squares: np.ndarray, batch: int, seconds: float) -> Latency:
    """Times a batch: at least 20 runs, then up to 200 while there is time.

    Args:
        runtime: The model.
        squares: (N, side, side, 3) uint8, repeated where a batch needs more.
        batch: Images at once.
        seconds: After which no more than the fewest runs are made.
    """
    inputs = np.ascontiguousarray(np.resize(squares, (batch, *squares.shape[1:])))
    for _ in range(_WARM_UP):
        runtime.logits(inputs)
    times: list[float] = []
    began = time.perf_counter()
    with activity(f"timing batches of {batch}", _FEWEST, "at least") as step:
        while len(times) < _FEWEST or (
            len(times) < _MOST and time.perf_counter() - began < seconds
        ):
            started = time.perf_counter()
            runtime.logits(inputs)
            times.append(1000 * (time.perf_counter() - started))
            step.done += 1
    return Latency(batch, float(np.median(times)), float(np.percentile(times, 95)), len(times))


def conditions(threads: int) -> dict[str, Any]:
    """Where the latencies were measured."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": processor(), "cores": cores(), "threads": threads, "gpu": gpu}


HEADER = ("", "valid.", "test", "size", "1 image", "32 images")


def cells(rows: Sequence[Measurement]) -> list[tuple[str, ...]]:
    """The table as text, a row a measurement, below `HEADER`."""
    return [
        (
            row.name,
            f"{100 * row.validation:.1f} %",
            f"{100 * row.test:.1f} %",
            f"{row.bytes / 1e6:.1f} MB",
            *(f"{each.median:.1f} ({each.p95:.1f})" for each in row.latency),
        )
        for row in rows
    ]


def text_table(rows: Sequence[Measurement]) -> str:
    """The table for a terminal."""
    lines = [HEADER, *cells(rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown_table(rows: Sequence[Measurement]) -> str:
    """The same for a Markdown file."""
    lines = ["| " + " | ".join(line) + " |" for line in [HEADER, *cells(rows)]]
    lines.insert(1, "| --- |" + " --: |" * (len(HEADER) - 1))
    return "\n".join(lines)


def legend(threads: int, device: str) -> str:
    """What the columns mean, in a sentence."""
    return (
        "Accuracy on validation and test images; size of the model file; milliseconds from "
        f"decoded images to logits, median (p95), {device}, "
        f"{threads} thread{'s' if threads > 1 else ''}."
    )
