"""Which maps of the backbone a method of training reads."""

from __future__ import annotations

from gsfl_tune.experiment.config import Config
from gsfl_tune.methods import Method
from gsfl_tune.models import Layer, layers_of, pooling_class


def method_layers(config: Config, method: Method) -> tuple[Layer, ...]:
    """Finds the maps behind trained blocks that a method reads, the last block first.

    Args:
        config: The configuration.
        method: Its method.

    Returns:
        As many as the method wants, or as there are trained blocks; none without a finetune stage.
    """
    stage, model = config.training.finetune, config.model
    if method.layers == 0 or stage.epochs == 0:
        return ()
    reads = pooling_class(model.pooling).reads
    found = layers_of(model.extractor, stage.blocks, config.data.image_size, reads)
    return found[: method.layers]
