"""The timeline of a trial: its stages, and the rungs where trials are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gsfl_tune.experiment.config import Config

StageName = Literal["head", "finetune"]


@dataclass(frozen=True)
class StageSpec:
    """A stage as the timeline knows it; what it does is in `gsfl_tune.training.stages`.

    Attributes:
        name: Of the stage, and of its section in ``training``.
        grace: Whether its first rung comes after ``search.scheduler.grace`` epochs; else after 1.
        divided: Whether several processes may divide its batches.
    """

    name: StageName
    grace: bool
    divided: bool


# In the order in which a trial goes through them.
STAGES = (
    StageSpec("head", grace=True, divided=False),
    StageSpec("finetune", grace=False, divided=True),
)


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
    """How many epochs of each stage one trial trains.

    Attributes:
        epochs: Of each stage, in the order of `STAGES`.
    """

    epochs: tuple[int, ...]

    @classmethod
    def of(cls, config: Config) -> Timeline:
        """Timeline of a configuration."""
        return cls(tuple(getattr(config.training, each.name).epochs for each in STAGES))

    @property
    def total(self) -> int:
        """Epochs over all stages."""
        return sum(self.epochs)

    def of_stage(self, name: StageName) -> int:
        """Epochs of a stage."""
        return self.epochs[_place(name)]

    def stage(self, epoch: int) -> StageSpec:
        """Return the stage of the epoch counted from 0; behind the end the last one."""
        end = 0
        for each, own in zip(STAGES, self.epochs, strict=True):
            end += own
            if epoch < end:
                return each
        return STAGES[-1]

    def stage_start(self, name: StageName) -> int:
        """Epoch, counted from 0, at which a stage begins."""
        return sum(self.epochs[: _place(name)])

    def rungs(self, largest: Timeline, *, grace: int = 1, reduction: int = 2) -> list[Rung]:
        """Rungs of this trial in a space whose longest stages are `largest`.

        Milestones of a stage are ``first * reduction**k`` epochs of it and its end; `first` is
        `grace` or 1, as `StageSpec` says. Every trial of a space has the same number of rungs: a
        stage that is shorter than the largest reports its end at the milestones that it does not
        reach, so that trials stay comparable.

        Args:
            largest: The largest number of epochs of every stage in the space.
            grace: Epochs before the first rung of stages that are given time.
            reduction: Factor between rungs.
        """
        rungs: list[Rung] = []
        for each, own_end, largest_end in zip(STAGES, self.epochs, largest.epochs, strict=True):
            start = self.stage_start(each.name)
            first = grace if each.grace else 1
            for milestone in _milestones(first, reduction, largest_end):
                # A trial without a head stage has nothing to show at head milestones before
                # its first epoch of all.
                epoch = max(1, start + min(milestone, own_end))
                rungs.append(Rung(len(rungs), epoch, each.name))
        return rungs


def _place(name: StageName) -> int:
    return [each.name for each in STAGES].index(name)


def _milestones(first: int, reduction: int, end: int) -> list[int]:
    if end == 0:
        return []
    milestones = []
    milestone = first
    while milestone < end:
        milestones.append(milestone)
        milestone *= reduction
    return [*milestones, end]
