"""Batches of the finetune stage."""

from gsfl_tune.training.batches._base import Batches
from gsfl_tune.training.batches.activations import ActivationBatches
from gsfl_tune.training.batches.create import create_batches
from gsfl_tune.training.batches.images import ImageBatches, SplitBatches

__all__ = ["ActivationBatches", "Batches", "ImageBatches", "SplitBatches", "create_batches"]
