"""Learning of a backbone's weights without labels: ``gsfl-tune pretrain``."""

from gsfl_tune.pretraining.directory import PAGE_FILE
from gsfl_tune.pretraining.pretrain import Pretrained, pretrain

__all__ = ["PAGE_FILE", "Pretrained", "pretrain"]
