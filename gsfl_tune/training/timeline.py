"""The timeline of a trial: its stages, and the rungs where trials are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gsfl_tune.experiment.config import Config

StageName = Literal["head", "finetune"]


@dataclass(frozen=True)
class Rung:
    """A point of comparison.

    Attributes:
        index: Position k on the timeline; the same k means the same milestone for every
            trial of a space.
        epoch: Epochs that this trial has trained when it gets here, over both stages.
        stage: The stage that the milestone belongs to.
    """

    index: int
    epoch: int
    stage: StageName


@dataclass(frozen=True)
class Timeline:
    """Epochs of the two stages of one trial."""

    head_epochs: int
    finetune_epochs: int

    @classmethod
    def of(cls, config: Config) -> Timeline:
        """Timeline of a configuration."""
        return cls(config.training.head.epochs, config.training.finetune.epochs)

    @property
    def total(self) -> int:
        """Epochs over both stages."""
        return self.head_epochs + self.finetune_epochs

    def stage(self, epoch: int) -> StageName:
        """Stage of the epoch counted from 0."""
        return "head" if epoch < self.head_epochs else "finetune"

    def stage_start(self, stage: StageName) -> int:
        """Epoch, counted from 0, at which a stage begins."""
        return 0 if stage == "head" else self.head_epochs

    def rungs(self, largest: Timeline, *, grace: int = 1, reduction: int = 3) -> list[Rung]:
        """Rungs of this trial in a space whose longest stages are `largest`.

        Milestones are ``grace * reduction**k`` epochs of the head stage and its end, then
        ``reduction**k`` epochs of the finetune stage and its end. Every trial of a space has
        the same number of rungs: a stage that is shorter than the largest reports its end at
        the milestones that it does not reach, so that trials stay comparable.

        Args:
            largest: The largest number of epochs of either stage in the space.
            grace: Head epochs before the first rung.
            reduction: Factor between rungs.
        """
        rungs: list[Rung] = []
        stages: tuple[tuple[StageName, int, int, int], ...] = (
            ("head", grace, self.head_epochs, largest.head_epochs),
            ("finetune", 1, self.finetune_epochs, largest.finetune_epochs),
        )
        for stage, first, own_end, largest_end in stages:
            start = self.stage_start(stage)
            for milestone in _milestones(first, reduction, largest_end):
                # A trial without a head stage has nothing to show at head milestones before
                # its first epoch of all.
                epoch = max(1, start + min(milestone, own_end))
                rungs.append(Rung(len(rungs), epoch, stage))
        return rungs


def _milestones(first: int, reduction: int, end: int) -> list[int]:
    if end == 0:
        return []
    milestones = []
    milestone = first
    while milestone < end:
        milestones.append(milestone)
        milestone *= reduction
    return [*milestones, end]
