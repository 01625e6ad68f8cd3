"""What a method of training cannot be combined with in the finetune stage."""

from __future__ import annotations

from collections.abc import Iterator

from gsfl_tune.experiment.config import Config
from gsfl_tune.methods import method_class


def method_problems(config: Config, *, cached: bool, maps: bool) -> Iterator[tuple[str, str]]:
    """Finds what a method needs of the finetune stage and does not get.

    Args:
        config: The configuration; it has a finetune stage.
        cached: Whether the stage reads cached activations.
        maps: Whether there is a map in front of the pooling, see `gsfl_tune.methods.Passes`.

    Yields:
        The leaf, and a message.

    Raises:
        PluginError: If the method of a package cannot be loaded.
    """
    name, stage = config.training.method, config.training.finetune
    method = method_class(name)
    if method.reads_maps and not maps:
        yield (
            "model.pooling",
            f"found {config.model.pooling}, but training.method: {name} needs a feature map from "
            f"which the whole feature follows, and {config.model.extractor} has none in its "
            "trained part; allowed: average",
        )
    if method.needs_images and cached:
        yield (
            "data.views",
            f"found {config.data.views} with training.finetune.blocks {stage.blocks}, whose "
            f"activations are cached, but training.method: {name} makes new images in every step; "
            "allowed: 0, or training.finetune.blocks: all",
        )
    for key, value in (("mixup", stage.mixup), ("cutmix", stage.cutmix)):
        if value > 0 and (method.unmixed or method.unblended):
            why = "which looks for the one class that an image shows"
            if not method.unmixed:
                why = "whose annotations are of one image and cannot be mixed"
            yield (
                f"training.finetune.{key}",
                f"found {value:g}, allowed 0 with training.method: {name}, {why}",
            )
    if method.unmixed and config.loss.distill.weight > 0:
        yield (
            "loss.distill.weight",
            f"found {config.loss.distill.weight:g}, allowed 0 with training.method: {name}: the "
            "teacher sees images before the method changes them",
        )
