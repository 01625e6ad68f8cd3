"""The data of one fold, with the caches that all folds share."""

from __future__ import annotations

from typing import Literal

import torch

from gsfl_tune.data.folds import Fold, fold_of
from gsfl_tune.experiment.config import Config
from gsfl_tune.models import Backbone
from gsfl_tune.training.caches.feature_table import FeatureTable
from gsfl_tune.training.caches.features import FeatureExtractor, View
from gsfl_tune.training.caches.teacher import Teacher
from gsfl_tune.training.workspace import Workspace


class FoldWorkspace(Workspace):
    """Holds the images of a fold.

    Features, activations and what a teacher says belong to images: they are those of the whole
    workspace, computed once for all folds. So are the projection of a pooling and a pretraining,
    which see images of the split's training part, but no labels. Class groups follow from labels:
    each fold has those of its own training images.

    Args:
        whole: The workspace with all images.
        fold: The fold that is held out.

    Raises:
        UserError: When the images cannot be divided, see `fold_of`.
    """

    def __init__(self, whole: Workspace, fold: Fold) -> None:
        super().__init__(fold_of(whole.dataset, fold), whole.cache_dir, whole.device)
        self._whole = whole
        self.fold = fold

    def backbone(self, config: Config) -> Backbone:
        """Returns the backbone of the whole workspace."""
        return self._whole.backbone(config)

    def extractor(self, config: Config) -> FeatureExtractor:
        """Returns the extractor of the whole workspace."""
        return self._whole.extractor(config)

    def table(
        self, config: Config, name: Literal["features", "views"], device: torch.device
    ) -> FeatureTable:
        """Returns the table of the whole workspace."""
        return self._whole.table(config, name, device)

    def free_device(self) -> None:
        """Releases the GPU memory of the whole workspace."""
        self._whole.free_device()

    @property
    def device_bytes(self) -> int:
        """Returns the bytes of GPU memory of the whole workspace."""
        return self._whole.device_bytes

    def teacher(self, config: Config) -> Teacher | None:
        """Returns the teacher of the whole workspace."""
        return self._whole.teacher(config)

    def _mapped(self, config: Config, part: str, view: View | None) -> torch.Tensor:
        return self._whole._mapped(config, part, view)
