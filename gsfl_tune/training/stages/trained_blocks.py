"""What a finetune stage trains of its backbone, at which rates, and from which epoch on.

Gradual unfreezing: Howard and Ruder, "Universal Language Model Fine-tuning for Text
Classification", ACL 2018, section 3.3. The last block is trained first, and one further block from
every k-th epoch on. In epoch e, counted from 0, the last 1 + floor(e / k) blocks are trained. A
block that has not been reached has no gradient: neither updates nor weight decay move it, and the
optimiser has no moments of it yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.config import FinetuneStageConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import ADAPTERS, Backbone, BackboneError, Network, adapters_problem
from gsfl_tune.training.context import StageContext
from gsfl_tune.training.optim import layered_groups, parameter_groups


def prepare_backbone(context: StageContext, backbone: Backbone) -> None:
    """Makes trainable what the configuration says.

    Args:
        context: Of the training.
        backbone: Pretrained, on the device; changed in place.

    Raises:
        UserError: If the backbone has no such part, knows no stochastic depth, or a package is
            missing.
    """
    config = context.config.training.finetune
    backbone.train_last(config.blocks)
    if config.drop_path > 0:
        try:
            backbone.drop_paths(config.drop_path)
        except BackboneError as error:
            found = f"found {config.drop_path:g}, but {error}"
            raise UserError(f"training.finetune.drop_path: {found}; allowed: 0") from error
    if config.mixstyle > 0:
        try:
            backbone.mix_styles(config.mixstyle, context.config.data.image_size)
        except BackboneError as error:
            found = f"found {config.mixstyle:g}, but {error}"
            raise UserError(f"training.finetune.mixstyle: {found}; allowed: 0") from error
    if config.train != "all":
        _narrow(context, backbone)


def stage_groups(
    context: StageContext, network: Network, *, as_before: bool = False
) -> list[dict[str, object]]:
    """Returns all that is trained, for the optimiser.

    Args:
        context: Of the training.
        network: Its backbone is as `prepare_backbone` leaves it.
        as_before: Whether position embeddings, tokens and the like have weight decay too, as in
            trainings of earlier versions.
    """
    config = context.config.training.finetune
    head = parameter_groups(
        [
            *network.head.parameters(),
            *network.pooling.parameters(),
            *([] if network.recurrent is None else network.recurrent.parameters()),
            *([] if network.parts is None else network.parts.parameters()),
            *([] if network.attention is None else network.attention.parameters()),
            *([] if network.granularities is None else network.granularities.parameters()),
            *context.loss.parameters(),
            *context.method.parameters(),
        ],
        learning_rate=config.head_learning_rate,
        weight_decay=config.weight_decay,
    )
    if config.optimizer == "muon":  # is for hidden layers
        head = [{**group, "use_fallback": True} for group in head]
    return _backbone_groups(config, network.backbone, as_before) + head


def group_sizes(groups: Iterable[Mapping[str, Any]]) -> list[int]:
    """Counts the tensors of every group of an optimiser, or of its state."""
    return [len(group["params"]) for group in groups]


def _backbone_groups(
    config: FinetuneStageConfig, backbone: Backbone, as_before: bool
) -> list[dict[str, object]]:
    undecayed = backbone.adapted_lengths() if as_before else backbone.undecayed()
    # Of blocks that join later, groups of their own: moments of one group begin together.
    if config.layer_decay == 1 and not config.unfreeze:
        return parameter_groups(
            (parameter for parameter in backbone.parameters() if parameter.requires_grad),
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            undecayed=undecayed,
        )
    return layered_groups(
        backbone.trained_blocks(),
        learning_rate=config.learning_rate,
        decay=config.layer_decay,
        weight_decay=config.weight_decay,
        undecayed=undecayed,
    )


def unfrozen_blocks(epoch: int, every: int) -> int | None:
    """Returns how many of the last blocks are trained in an epoch; None for all of them.

    Args:
        epoch: Epoch of the stage, from 0.
        every: ``training.finetune.unfreeze``, in epochs.
    """
    return 1 + epoch // every if every else None


def _narrow(context: StageContext, backbone: Backbone) -> None:
    """Leaves only a part of the blocks trainable."""
    config = context.config.training.finetune
    if problem := adapters_problem(config.train):
        raise UserError(f"training.finetune.train: {problem}")
    try:
        if config.train not in ADAPTERS:
            backbone.train_last(config.blocks, config.train)
            return
        seed = torch.randint(2**62, (), generator=Streams(context.seed)("adapters"))
        backbone.adapt(
            config.train,
            rank=config.adapter_rank,
            scale=config.adapter_scale,
            seed=int(seed),
            image_size=context.config.data.image_size,
        )
    except BackboneError as error:
        found = f"found {config.train}, but {error}"
        raise UserError(f"training.finetune.train: {found}; allowed: all") from error
