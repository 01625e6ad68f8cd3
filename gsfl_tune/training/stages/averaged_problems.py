"""What an optimiser whose weights are an average already cannot be combined with."""

from __future__ import annotations

from gsfl_tune.experiment.config import FinetuneStageConfig
from gsfl_tune.experiment.errors import UserError

AVERAGED_TWICE = (
    "found it with training.finetune.optimizer: schedule_free, whose weights are an average "
    "already; allowed: 0, or another optimizer"
)
STEPS_TOGETHER = (
    "found it with training.finetune.optimizer: schedule_free, which counts the steps of a group "
    "and not of a block that joins; allowed: 0, or another optimizer"
)


def refuse_averages(config: FinetuneStageConfig, *, averaged: bool) -> None:
    """Refuses what `check` refuses, for configurations that it has not seen.

    Args:
        config: Section ``training.finetune``.
        averaged: Whether the training has an average of weights of its own.

    Raises:
        UserError: With what was found and what is allowed.
    """
    if config.optimizer != "schedule_free":
        return
    if averaged:
        raise UserError(f"training.ema: {AVERAGED_TWICE}")
    if config.unfreeze:
        raise UserError(f"training.finetune.unfreeze: {STEPS_TOGETHER}")
