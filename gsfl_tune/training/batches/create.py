"""The choice of batches: images, images through a frozen part, or cached activations."""

from __future__ import annotations

import logging

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import CannotCut, Network
from gsfl_tune.training.batches._base import Batches
from gsfl_tune.training.batches.activations import ActivationBatches
from gsfl_tune.training.batches.images import ImageBatches, SplitBatches
from gsfl_tune.training.context import StageContext

log = logging.getLogger("gsfl_tune.training")


def create_batches(context: StageContext, network: Network) -> Batches:
    """Makes the batches that a finetune stage trains on.

    Args:
        context: Context of the training.
        network: Network on the device, with the trained blocks.

    Raises:
        UserError: If images of other sizes are asked for and activations are cached.
    """
    config = context.config
    blocks = config.training.finetune.blocks
    if blocks == "all" or blocks >= network.backbone.block_count:
        return ImageBatches(context, network)
    try:
        split = network.backbone.split(config.data.image_size)
    except CannotCut as error:
        log.warning(
            "%s cannot be cut in front of its last %d blocks (%s): it is run as a whole",
            config.model.extractor,
            blocks,
            error,
        )
        return ImageBatches(context, network)
    # Cached are activations of the pretrained backbone.
    if config.data.views and not context.backbone_trained:
        if (share := config.training.finetune.start_size) < 1:
            raise UserError(
                f"training.finetune.start_size: found {share:g} with cached activations, which are "
                "those of one size; allowed 1, data.views: 0, or blocks: all"
            )
        return ActivationBatches(context, network, split)
    # The fast copy is not compiled: the compiler makes its own. It passes no gradients to images,
    # from which regions learn.
    whole = config.training.finetune.compile or network.recurrent is not None
    return ImageBatches(context, network) if whole else SplitBatches(context, network, split)
