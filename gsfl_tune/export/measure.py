"""Measurements of an export: accuracy, size and latency, before and after."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from gsfl_tune.activity import activity
from gsfl_tune.cores import model_name, usable_cores
from gsfl_tune.experiment.units import megabytes
from gsfl_tune.export.images import RunImages
from gsfl_tune.export.runtimes import Runtime
from gsfl_tune.training.timing import Timing, measure_time

BATCHES = (1, 32)
_WARM_UP = 3
_FEWEST, _MOST = 20, 200


@dataclass(frozen=True)
class Latency:
    """Holds the milliseconds of a batch, from decoded squares to logits.

    Attributes:
        batch: Images per batch.
        median: Median of all runs.
        p95: 95 % of the runs took no longer.
        runs: Number of runs.
        spread: Difference between medians of parts of the measurement, a share of the smallest.
        others: Cores that other processes used meanwhile.
        cores: Number of cores.
        reliable: Whether it was steady, with a core for every thread; None in files of earlier
            versions, which did not check.
    """

    batch: int
    median: float
    p95: float
    runs: int
    spread: float | None = None
    others: float | None = None
    cores: int | None = None
    reliable: bool | None = None

    @classmethod
    def of(cls, batch: int, timing: Timing) -> Latency:
        """Builds it from a timing."""
        return cls(batch, timing.median, timing.p95, timing.runs, **timing.to_json())

    @property
    def text(self) -> str:
        """Formats it as ``12.3 (14.0)``, with a question mark if it is unreliable."""
        return f"{self.median:.1f} ({self.p95:.1f})" + (" ?" if self.reliable is False else "")


@dataclass(frozen=True)
class Measurement:
    """Holds one row of the table.

    Attributes:
        name: Name of the measured model.
        validation: Accuracy on the validation images.
        test: Accuracy on the test images.
        bytes: Size of the model file.
        latency: One for each of `BATCHES`.
        nll: NLL on the test images; None in files of earlier versions, like `ece`.
        ece: ECE on the test images.
    """

    name: str
    validation: float
    test: float
    bytes: int
    latency: list[Latency]
    nll: float | None = None
    ece: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns plain dictionaries and lists."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Measurement:
        """Inverts `to_json`."""
        return cls(**{**content, "latency": [Latency(**each) for each in content["latency"]]})


def measure(
    name: str, runtime: Runtime, images: RunImages, size: int, seconds: float
) -> Measurement:
    """Measures one model.

    Args:
        name: Name of the row.
        runtime: The model; it computes with as many threads as it was given.
        images: Images of the run.
        size: Bytes of its file.
        seconds: See `latency`.
    """
    squares = images.examples(max(BATCHES))
    test = images.metrics(runtime, "test")
    return Measurement(
        name=name,
        validation=images.accuracy(runtime, "validation"),
        test=test["accuracy"],
        bytes=size,
        latency=[latency(runtime, squares, batch, seconds) for batch in BATCHES],
        nll=test["nll"],
        ece=test["ece"],
    )


def latency(runtime: Runtime, squares: np.ndarray, batch: int, seconds: float) -> Latency:
    """Times a batch in rounds of at least 20 runs, up to 200 while there is time.

    A round that was not steady, or during which other processes used the cores, is repeated for a
    while. If no round is better, the time is marked, see `Latency.reliable`.

    Args:
        runtime: The model; it computes with as many threads as PyTorch was given.
        squares: (N, side, side, 3) uint8, repeated if a batch needs more.
        batch: Images per batch.
        seconds: Time limit of a round, after the fewest runs.
    """
    inputs = np.ascontiguousarray(np.resize(squares, (batch, *squares.shape[1:])))
    for _ in range(_WARM_UP):
        runtime.logits(inputs)

    with activity(f"timing batches of {batch}", _FEWEST, "at least") as step:

        def run() -> float:
            started = time.perf_counter()
            runtime.logits(inputs)
            step.done += 1
            return 1000 * (time.perf_counter() - started)

        threads = torch.get_num_threads()
        timing = measure_time(run, fewest=_FEWEST, most=_MOST, seconds=seconds, threads=threads)
    return Latency.of(batch, timing)


def conditions(threads: int) -> dict[str, Any]:
    """Describes the machine of the latencies."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": model_name(), "cores": usable_cores(), "threads": threads, "gpu": gpu}


HEADER = ("", "valid.", "test", "NLL", "size", "1 image", "32 images")


def cells(rows: Sequence[Measurement]) -> list[tuple[str, ...]]:
    """Returns the table as text, one row per measurement, below `HEADER`."""
    return [
        (
            row.name,
            f"{100 * row.validation:.1f} %",
            f"{100 * row.test:.1f} %",
            "-" if row.nll is None else f"{row.nll:.3f}",
            megabytes(row.bytes),
            *(each.text for each in row.latency),
        )
        for row in rows
    ]


def text_table(rows: Sequence[Measurement]) -> str:
    """Formats the table for a terminal."""
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
    """Formats the table for a Markdown file."""
    lines = ["| " + " | ".join(line) + " |" for line in [HEADER, *cells(rows)]]
    lines.insert(1, "| --- |" + " --: |" * (len(HEADER) - 1))
    return "\n".join(lines)


def legend(threads: int, device: str) -> str:
    """Explains the columns in a sentence."""
    return (
        "Accuracy on validation and test images, NLL on test images; size of the model file; "
        f"milliseconds from decoded images to logits, median (p95), {device}, "
        f"{threads} thread{'s' if threads > 1 else ''}."
    )


def doubts(rows: Sequence[Measurement]) -> str:
    """Explains the times with a question mark; empty if there are none."""
    found = [
        f"{row.name}, {each.batch} image{'s' if each.batch > 1 else ''} (medians differed by "
        f"{100 * (each.spread or 0):.0f} %, other processes used {each.others:.1f} of "
        f"{each.cores} cores)"
        for row in rows
        for each in row.latency
        if each.reliable is False
    ]
    if not found:
        return ""
    return (
        "Times with a question mark are unreliable: they were measured while the machine was busy "
        f"or did not become steady: {'; '.join(found)}. Do not compare them; export again on an "
        "idle machine."
    )
