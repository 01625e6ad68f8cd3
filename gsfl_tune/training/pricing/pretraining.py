"""What pretrainings cost that a search does in front of its trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.fields import leaves
from gsfl_tune.experiment.pretrain_config import PretrainAugmentConfig
from gsfl_tune.models.arithmetic import backbone_work
from gsfl_tune.training.pretrain.bases import BASES
from gsfl_tune.training.pricing.cases import cases
from gsfl_tune.training.pricing.values import values_of
from gsfl_tune.training.timeline import pretraining_rungs

# A pass with gradients does the work of a forward pass three times.
_STEP = 3.0


@dataclass(frozen=True)
class PretrainingPrice:
    """Holds upper bounds for the pretrainings of a search.

    Attributes:
        count: Different ones, at most one a trial.
        epochs: Most epochs of one.
        expected: Epochs of one on average, where weak trials stop within it and each trial has one
            of its own.
        operations: Most multiplications and additions of the backbone for one image and epoch.
        backbone: The backbone that they are of.
        image_size: Side of its views in pixels.
        passes: The same work in forward passes of the backbone.
    """

    count: int
    epochs: int
    expected: float
    operations: float
    backbone: str
    image_size: int
    passes: float


def pretraining_price(experiment: Experiment, trials: int) -> PretrainingPrice | None:
    """Returns the price of pretrainings; None where no trial has one.

    Args:
        experiment: The experiment.
        trials: Number of trials.

    Raises:
        BackboneError: A backbone cannot be built.
    """
    if True not in experiment.values("training.pretrain"):
        return None
    best: tuple[float, str, int, float] = (0.0, "", 0, 0.0)
    for case in cases(experiment):
        name = case.values("model.backbone")[0]
        own, shown = case.values("pretrain.image_size"), case.values("data.image_size")
        size = max(most for each in own for most in (shown if each is None else [each]))
        whole = sum(backbone_work(name, "all", size)[:2])
        # A pair of decoded images passes as the two views do.
        pairs = max(case.values("pretrain.discriminative.pair_weight")) > 0
        passes = max(_passes(method) for method in case.values("pretrain.method"))
        operations = whole * passes * (2 if pairs else 1)
        for crops in case.values("pretrain.augment.local_crops"):
            # Small views pass with gradients; the averaged network does not see them.
            sides = case.values("pretrain.augment.local_size")
            side = max(each or PretrainAugmentConfig().local_side(size) for each in sides)
            small = sum(backbone_work(name, "all", side)[:2]) if crops else 0.0
            own_work = operations + _STEP * crops * small
            best = max(best, (own_work, name, size, own_work / whole))
    count = min(pretrainings(experiment), trials)
    epochs = max(experiment.values("pretrain.epochs"))
    expected = expected_epochs(
        pretraining_rungs(experiment), experiment.defaults().search.scheduler.reduction
    )
    return PretrainingPrice(int(count), epochs, expected or epochs, *best)


def expected_epochs(rungs: Sequence[int], reduction: int) -> float:
    """Returns the epochs that a trial trains on average, where one in `reduction` passes a rung.

    Args:
        rungs: Epochs of the rungs; the last one is the end.
        reduction: See ``search.scheduler``.
    """
    return sum(
        (epoch - before) / reduction**passed
        for passed, (before, epoch) in enumerate(pairwise([0, *rungs]))
    )


def pretrainings(experiment: Experiment) -> float:
    """Counts the different pretrainings of a space; infinite for a range of floats."""
    if True not in experiment.values("training.pretrain"):
        return 1
    paths = [path for path in leaves() if path.startswith("pretrain.")]
    paths += ["model.backbone", "model.weights", "data.image_size", "data.fit"]
    return math.prod(values_of(experiment, path) for path in paths)


def _passes(method: str) -> float:
    """Counts forward passes of the backbone, or their work, for one image in an epoch."""
    kind = BASES[method]
    return _STEP * len(kind.shown) + len(kind.taught)
