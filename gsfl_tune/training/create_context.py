"""Creates the state that a training shares with its stages: head, loss, method, labels."""

from __future__ import annotations

import numpy as np
import torch

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.heads import GROUPED_HEADS, SHARED_HEADS
from gsfl_tune.losses import Sizes
from gsfl_tune.losses.attributes import ATTRIBUTES
from gsfl_tune.losses.causality import RESTITUTED
from gsfl_tune.losses.parts import PARTS
from gsfl_tune.methods import create_method
from gsfl_tune.models import create_head, pooling_class
from gsfl_tune.plugins import PluginError
from gsfl_tune.training.attributes import training_attributes
from gsfl_tune.training.class_text import start_from_texts
from gsfl_tune.training.context import StageContext
from gsfl_tune.training.fingerprint import FitOn
from gsfl_tune.training.layers import method_layers
from gsfl_tune.training.loss import create_loss
from gsfl_tune.training.parts import training_parts
from gsfl_tune.training.precision import prefix_uses_bf16, uses_bf16
from gsfl_tune.training.restitution import restituted_channels, snr_problems
from gsfl_tune.training.seeds import mix
from gsfl_tune.training.timeline import Timeline
from gsfl_tune.training.workspace import Workspace, resolve_device


def create_context(
    config: Config, workspace: Workspace, *, seed: int, fit: FitOn, pieces: int
) -> StageContext:
    """Creates the context of a new training.

    Args:
        config: The configuration.
        workspace: Data and caches of this node.
        seed: Seed of the weights.
        fit: Which images are trained on.
        pieces: Number of parts in which a batch is trained.

    Raises:
        UserError: If weights, device, groups, taxonomy, class descriptions, method, a term of the
            loss or the teacher are not available.
    """
    if not config.training.finetune.epochs and pooling_class(config.model.pooling).starts_as:
        raise UserError(
            f"model.pooling: found {config.model.pooling} without a finetune stage, in which it is "
            "trained; allowed: average, or training.finetune.epochs above 0"
        )
    if config.training.finetune.epochs and config.training.finetune.snr:
        for path, message in snr_problems(config):
            raise UserError(f"{path}: {message}")
    device = resolve_device(config.training.device)
    dataset, model = workspace.dataset, config.model
    positions = dataset.train_index if fit == "train" else dataset.final_index
    labels = dataset.pool.labels
    where = (config, workspace.backbone(config), device, workspace.cache_dir)
    attributes = training_attributes(config, workspace, positions)
    known = {} if attributes is None else {ATTRIBUTES: attributes}
    parts = training_parts(config, workspace, positions)
    try:
        method = create_method(config.training)
    except PluginError as error:
        raise UserError(f"training.method: {error}") from error
    with torch.random.fork_rng(devices=random_devices(device)):
        torch.manual_seed(seed)
        head = create_head(
            model.head,
            workspace.feature_dim(config),
            dataset.class_count,
            latent_dim=model.latent_dim,
            dropout=model.dropout,
            feature_scale=model.feature_scale,
            decoder=model.decoder,
        ).to(device)
        if model.classifier_init == "class_text":
            start_from_texts(head, config, workspace, positions)
        # A seed of its own: random numbers of a method must not change the head.
        torch.manual_seed(mix(seed, 0))
        groups = workspace.groups(config) if model.head in GROUPED_HEADS else None
        sizes = Sizes(
            head.feature_dim,
            head.latent_dim,
            dataset.class_count,
            None if groups is None else torch.from_numpy(groups),
            tuple(layer.channels for layer in method_layers(config, method)),
            {
                **{name: each.shape[1] for name, each in known.items()},
                RESTITUTED: restituted_channels(config),
                PARTS: len(parts),
            },
        )
        method.build(sizes)
        try:
            loss = create_loss(config, labels[positions], sizes, seed=mix(seed, 1))
        except PluginError as error:
            raise UserError(str(error)) from error
    return StageContext(
        config=config,
        seed=seed,
        workspace=workspace,
        device=device,
        autocast=uses_bf16(*where),
        frozen_bf16=prefix_uses_bf16(*where),
        head=head,
        loss=loss.to(device),
        method=method.to(device),
        groups=groups if model.head in SHARED_HEADS else None,
        train_positions=torch.from_numpy(np.ascontiguousarray(positions)),
        labels=torch.from_numpy(np.ascontiguousarray(labels)).to(device),
        total_epochs=Timeline.of(config).total,
        known_of_images={name: each.to(device) for name, each in known.items()},
        part_names=parts,
        teacher=workspace.teacher(config),
        pieces=pieces,
    )


def random_devices(device: torch.device) -> list[int]:
    """Lists the GPUs whose random state a training must not change."""
    return [torch.cuda.current_device()] if device.type == "cuda" else []
