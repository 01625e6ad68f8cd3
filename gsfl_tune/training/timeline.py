"""The timeline of a trial: its stages, and the rungs where trials are compared."""

from __future__ import annotations

from dataclasses import dataclass

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config

StageName = str
"""Name of a row of `STAGES`."""


@dataclass(frozen=True)
class StageSpec:
    """Describes a stage for the timeline; its code is in `gsfl_tune.training.stages`.

    Attributes:
        name: Name of the stage and of its section in ``training``.
        grace: Whether its first rung comes after ``search.scheduler.grace`` epochs; else after 1.
        divided: Whether several processes may share its batches.
        trains_backbone: Whether it changes the backbone, so that features are new behind it.
        like: The stage whose code it runs, with settings of its own; empty for code of its own.
    """

    name: StageName
    grace: bool
    divided: bool
    trains_backbone: bool
    like: StageName = ""

    @property
    def kind(self) -> StageName:
        """Returns the stage whose code it runs: its key in `STAGE_KINDS`."""
        return self.like or self.name

    def seen_by(self, config: Config) -> Config:
        """Returns the configuration that its code reads: its section is that of its kind."""
        if not self.like:
            return config
        own = getattr(config.training, self.name)
        training = config.training.model_copy(update={self.like: own})
        return config.model_copy(update={"training": training})


# In training order.
STAGES = [
    StageSpec("head", grace=True, divided=False, trains_backbone=False),
    StageSpec("finetune", grace=False, divided=True, trains_backbone=True),
]


@dataclass(frozen=True)
class Rung:
    """Marks an epoch at which trials are compared.

    Attributes:
        index: Position k on the timeline; the same k means the same milestone for every
            trial of a space.
        epoch: Epochs that this trial has trained at this point, over all stages.
        stage: The stage that the milestone belongs to.
    """

    index: int
    epoch: int
    stage: StageName


@dataclass(frozen=True)
class Timeline:
    """Holds the number of epochs that a trial trains in each stage.

    Attributes:
        epochs: Epochs of each stage, in the order of `STAGES`.
    """

    epochs: tuple[int, ...]

    @classmethod
    def of(cls, config: Config) -> Timeline:
        """Returns the timeline of a configuration."""
        return cls(tuple(getattr(config.training, each.name).epochs for each in STAGES))

    @property
    def total(self) -> int:
        """Returns the epochs over all stages."""
        return sum(self.epochs)

    @property
    def trains_backbone(self) -> bool:
        """Returns whether a stage with epochs changes the backbone."""
        pairs = zip(STAGES, self.epochs, strict=True)
        return any(epochs > 0 and each.trains_backbone for each, epochs in pairs)

    @property
    def stages(self) -> list[StageSpec]:
        """Returns the stages that have epochs."""
        return [each for each, epochs in zip(STAGES, self.epochs, strict=True) if epochs]

    def of_stage(self, name: StageName) -> int:
        """Returns the epochs of a stage."""
        return self.epochs[_place(name)]

    def backbone_trained_before(self, name: StageName) -> bool:
        """Returns whether a stage with epochs in front of a stage changes the backbone."""
        return any(each.trains_backbone for each in self.stages if _place(each.name) < _place(name))

    def stage(self, epoch: int) -> StageSpec:
        """Returns the stage of an epoch counted from 0; after the end, the last stage."""
        end = 0
        for each, own in zip(STAGES, self.epochs, strict=True):
            end += own
            if epoch < end:
                return each
        return STAGES[-1]

    def stage_start(self, name: StageName) -> int:
        """Returns the epoch, counted from 0, at which a stage begins."""
        return sum(self.epochs[: _place(name)])

    def rungs(self, largest: Timeline, *, grace: int = 1, reduction: int = 2) -> list[Rung]:
        """Returns the rungs of this trial in a space whose longest stages are `largest`.

        Milestones of a stage are ``first * reduction**k`` epochs and its end; `first` is `grace` or
        1, as in `StageSpec`. Every trial of a space has the same number of rungs. A stage shorter
        than the largest reports its end at the milestones that it does not reach, so that trials
        stay comparable.

        Args:
            largest: Largest number of epochs of every stage in the space.
            grace: Epochs before the first rung of stages with grace.
            reduction: Factor between rungs.
        """
        rungs: list[Rung] = []
        for each, own_end, largest_end in zip(STAGES, self.epochs, largest.epochs, strict=True):
            start = self.stage_start(each.name)
            first = grace if each.grace else 1
            for milestone in _milestones(first, reduction, largest_end):
                # A trial without a head stage has no result for head milestones before its first
                # epoch.
                epoch = max(1, start + min(milestone, own_end))
                rungs.append(Rung(len(rungs), epoch, each.name))
        return rungs


def pretraining_rungs(experiment: Experiment) -> list[int]:
    """Returns the epochs of pretrainings at which trials are compared, in front of their rungs.

    They are ``search.scheduler.pretrain_grace * reduction**k`` epochs, and the end of the longest
    pretraining of the space. A shorter one has those that it reaches: its end is not compared with
    later epochs of others. The last one is rung -1. Empty where trials have no pretraining, or are
    not compared within it.
    """
    scheduler = experiment.defaults().search.scheduler
    if scheduler.name != "asha" or scheduler.pretrain_grace is None:
        return []
    if True not in experiment.values("training.pretrain"):
        return []
    longest = max(experiment.values("pretrain.epochs"))
    return _milestones(scheduler.pretrain_grace, scheduler.reduction, longest)


def stage_spec(name: StageName) -> StageSpec:
    """Returns a row of `STAGES`."""
    return STAGES[_place(name)]


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
