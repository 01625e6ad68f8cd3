"""What a worker process must know of a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from gsfl_tune.experiment.config import Config
from gsfl_tune.search.workers.replicates import Replicates
from gsfl_tune.search.workers.settings import WorkerSettings


class Task(WorkerSettings):
    """Describes a trial for a worker process.

    Attributes:
        number: Trial number.
        config: The configuration.
        directory: Directory for the trial's files.
        metric: The objective.
        others: Keys of the numbers to report besides the objective: metrics of the validation
            images, and measures of the network.
        early_latency: Whether the latency, if it is one of them, is measured at the first rung,
            not at the end.
        rungs: Epoch of each rung of one training. Further trainings have one rung each, at
            their end.
        reduction: Factor between rungs, for Ray's ``rung_time``.
        reported: The first rung whose value the study does not have.
        pretraining: Epochs of the rungs within a pretraining, the last one of which is rung -1. A
            trial has those that its own pretraining reaches.
        params: All drawn values of searched parameters.
        shown: The active ones, in the form that TensorBoard shows.
        pieces: Number of parts of a batch, more than one where the trial ran out of memory
            before.
        timeout: Seconds that the trial may take, those before a restart included.
        replicates: The trainings that it can have.
        finished: Numbers at the end of each training that the study already has.
    """

    number: int
    config: Config
    directory: Path
    metric: str
    others: list[str] = Field(default_factory=list)
    early_latency: bool = False
    rungs: list[int]
    reduction: int = 2
    reported: int = 0
    pretraining: list[int] = Field(default_factory=list)
    params: dict[str, Any] = Field(default_factory=dict)
    shown: dict[str, bool | int | float | str] = Field(default_factory=dict)
    pieces: int = 1
    timeout: float | None = None
    replicates: Replicates = Replicates()
    finished: list[dict[str, float]] = Field(default_factory=list)

    @property
    def last_rung(self) -> int:
        """Returns the rung at which the trial is complete."""
        return self.replicates.last_rung(len(self.rungs) - 1)

    def place(self, k: int) -> tuple[int, int]:
        """Returns the training that reaches rung `k`, from 0, and its epoch there."""
        further = k - len(self.rungs) + 1
        return (0, self.rungs[k]) if further <= 0 else (further, self.rungs[-1])

    @property
    def name(self) -> str:
        """Returns the name that a user sees."""
        return f"trial {self.number}"
