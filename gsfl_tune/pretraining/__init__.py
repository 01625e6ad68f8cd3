"""Learning of a backbone's weights without labels: ``gsfl-tune pretrain``."""

from gsfl_tune.pretraining.pretrain import PAGE_FILE, Pretrained, pretrain

__all__ = ["PAGE_FILE", "Pretrained", "pretrain"]
