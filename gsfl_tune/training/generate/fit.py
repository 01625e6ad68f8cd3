"""Trains a generator of features on those of the training images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gsfl_tune.activity import activity
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.generate_config import GenerateConfig
from gsfl_tune.training.caches.feature_table import FeatureTable
from gsfl_tune.training.generate._base import Critic, Draw
from gsfl_tune.training.generate.instance import InstanceCritic
from gsfl_tune.training.generate.network import FeatureGenerator
from gsfl_tune.training.generate.pairs import Pairs
from gsfl_tune.training.generate.relation import RelationCritic
from gsfl_tune.training.generate.terms import class_loss, collapse
from gsfl_tune.training.generate.wasserstein import WassersteinCritic

# By their name in the experiment file.
CRITICS: dict[str, type[Critic]] = {
    "wasserstein": WassersteinCritic,
    "relation": RelationCritic,
    "instance": InstanceCritic,
}
# Those of Gulrajani et al.: with momentum both networks chase each other.
_BETAS = (0.0, 0.9)
_BATCH = 512


def class_means(
    table: FeatureTable, positions: np.ndarray, labels: np.ndarray, classes: int
) -> Tensor:
    """Computes the mean of every class' features in their first view, scaled to length 1.

    Args:
        table: Unit features of all images.
        positions: (N,) positions of the training images.
        labels: Labels of all images, indexed by ``positions``.
        classes: C.

    Returns:
        (C, D) on the device of the table; zeros for a class without training images.
    """
    sums: Tensor | None = None
    for (features,), which in table.batches(torch.from_numpy(positions), _BATCH):
        # A product adds up in the same order every time; on a GPU `index_add` does not.
        own = torch.from_numpy(labels[which.cpu().numpy()]).to(features.device)
        part = functional.one_hot(own, classes).to(features.dtype).T @ features
        sums = part if sums is None else sums + part
    assert sums is not None
    return functional.normalize(sums, dim=1)


def fit_generator(
    table: FeatureTable,
    means: Tensor,
    positions: np.ndarray,
    labels: np.ndarray,
    config: GenerateConfig,
    *,
    seed: int,
) -> FeatureGenerator:
    """Trains a generator against its critic, which is thrown away.

    The generator minimises the loss of its critic plus ``classification`` times `class_loss` and
    ``diversity`` times `collapse`. All random numbers are a function of the seed, and nothing else
    draws from them. Global random generators are left as they were.

    Args:
        table: Unit features of all images, in one or several views.
        means: (C, D) see `class_means`.
        positions: (N,) positions of the training images; no others are read.
        labels: Labels of all images, indexed by ``positions``.
        config: The settings.
        seed: Of the training.

    Returns:
        The generator, on the device of the table.

    Raises:
        UserError: If no class has two training images.
    """
    try:
        pairs = Pairs(positions, labels)
    except ValueError as error:
        raise UserError(
            f"training.head.generate.share: found {config.share:g}, but {error} to train on: "
            "nothing shows how images of a class differ; allowed: 0, or more images"
        ) from error
    device, streams = table.device, Streams(seed)
    every = torch.from_numpy(np.ascontiguousarray(labels)).to(device)
    known = means.square().sum(dim=1) > 0
    random = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=random), torch.enable_grad():
        torch.manual_seed(streams("generator weights").initial_seed())
        generator, critic = _networks(means, config)
        ours = torch.optim.Adam(generator.parameters(), config.learning_rate, betas=_BETAS)
        theirs = torch.optim.Adam(critic.parameters(), config.learning_rate, betas=_BETAS)
        with activity("generator of features", config.steps, "steps") as step:
            while step.done < config.steps:
                for _ in range(config.critic_steps):
                    draw = _drawn(table, pairs, every, generator, config, streams)
                    loss = critic.critic_loss(generator, draw)
                    theirs.zero_grad(set_to_none=True)
                    loss.backward()
                    theirs.step()
                draw = _drawn(table, pairs, every, generator, config, streams)
                loss = _generator_loss(generator, critic, draw, means, known)
                ours.zero_grad(set_to_none=True)
                loss.backward()
                ours.step()
                step.done += 1
    return generator.eval().requires_grad_(False)


def _networks(means: Tensor, config: GenerateConfig) -> tuple[FeatureGenerator, Critic]:
    """Makes both on the device of the means, with weights that do not depend on the device."""
    dim = means.shape[1]
    own = means if config.condition == "class_mean" else None
    generator = FeatureGenerator(dim, config.noise_dim, config.hidden_dim, own)
    critic = CRITICS[config.critic](dim, config)
    return generator.to(means.device), critic.to(means.device)


def _drawn(
    table: FeatureTable,
    pairs: Pairs,
    labels: Tensor,
    generator: FeatureGenerator,
    config: GenerateConfig,
    streams: Streams,
) -> Draw:
    random, size = streams("generator images"), config.batch_size
    order = pairs.draw(size, random).flatten()
    shown = torch.randint(table.views, (1, len(order)), generator=random)
    [((rows,), positions)] = table.batches(order, len(order), shown, sort=False)
    own = labels[positions[:size]]
    noise = torch.randn((2, size, config.noise_dim), generator=random).to(rows.device)
    condition = generator.condition(rows[size:], own)
    return Draw(rows[:size], own, condition, noise[0], noise[1])


def _generator_loss(
    generator: FeatureGenerator, critic: Critic, draw: Draw, means: Tensor, known: Tensor
) -> Tensor:
    config = critic.config
    critic.requires_grad_(False)
    made = generator(draw.condition, draw.noise)
    loss = critic.generator_loss(generator, draw, made)
    critic.requires_grad_(True)
    if config.classification:
        loss = loss + config.classification * class_loss(made, draw.labels, means, known)
    if config.diversity:
        others = generator(draw.condition, draw.further)
        loss = loss + config.diversity * collapse(made, others, draw.noise, draw.further)
    return loss
