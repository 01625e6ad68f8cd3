"""Settings of ``pretrain`` that do not go together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gsfl_tune.experiment.pretrain_config import PretrainAugmentConfig
from gsfl_tune.experiment.space import Space, ends


def pretraining_problems(space: Space) -> Iterator[tuple[str, str, Any]]:
    """Finds settings of a pretraining that cannot work.

    Args:
        space: The compiled space.

    Yields:
        The leaf, the message, and the value that it is about.
    """

    def values(path: str) -> list[Any]:
        return ends(space.possible(path))

    shown = [size for size in values("data.image_size") if size is not None]
    own = [size for size in values("pretrain.image_size") if size is not None]
    if own and max(own) > max(shown):
        yield (
            "pretrain.image_size",
            f"found {max(own)}, allowed at most data.image_size, {max(shown)}: images are decoded "
            "for that",
            max(own),
        )
    smallest = min([*own, *(shown if None in values("pretrain.image_size") else [])])
    path = "pretrain.discriminative.decoder_size"
    large = [size for size in values(path) if size is not None and size > smallest]
    if large:
        yield (path, f"found {large[0]}, allowed at most the image size, {smallest}", large[0])
    batch, groups = max(values("pretrain.batch_size")), values("pretrain.norm_groups")
    many = [each for each in groups if each is not None and each > batch // 2]
    if many and "moco" in values("pretrain.method"):
        yield (
            "pretrain.norm_groups",
            f"found {many[0]}, allowed at most half of pretrain.batch_size, {batch // 2}",
            many[0],
        )
    # Only constants: what a trial draws is refused when it begins.
    names = PretrainAugmentConfig.model_fields
    fixed = {name: values(f"pretrain.augment.{name}") for name in names}
    if all(len(each) == 1 for each in fixed.values()):
        augment = PretrainAugmentConfig(**{name: each[0] for name, each in fixed.items()})
        if augment.off:
            yield (
                "pretrain.augment.scale",
                f"found {augment.scale:g} without any other change, allowed less than 1, or "
                "another change: both views of an image are the same",
                augment.scale,
            )
    if True in values("training.pretrain") and space.constants.get("search.time_budget"):
        yield (
            "training.pretrain",
            "found true with search.time_budget, allowed without it: the time of a pretraining is "
            "not part of the plan; `gsfl-tune pretrain` makes weights for model.weights first",
            True,
        )
    second = [name for name in values("model.backbone_b") if name != "none"]
    if True in values("training.pretrain") and second:
        yield (
            "training.pretrain",
            f"found true with model.backbone_b {second[0]}, allowed with one backbone: "
            "pretrain each with `gsfl-tune pretrain`, for model.weights and model.weights_b",
            True,
        )
