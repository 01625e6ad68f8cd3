"""A few epochs of training that recover accuracy after pruning or quantisation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gsfl_tune.activity import activity
from gsfl_tune.data import Augment, epoch_batches
from gsfl_tune.experiment.config import FinetuneStageConfig
from gsfl_tune.experiment.data_config import AugmentConfig
from gsfl_tune.export.fake_quant import fake_quantised
from gsfl_tune.export.images import RunImages
from gsfl_tune.models import Network
from gsfl_tune.training.optim import (
    create_optimizer,
    learning_rate_factor,
    parameter_groups,
    set_learning_rate,
)

_BATCH = 32
_TEMPERATURE = 2.0


def refine(
    network: Network,
    teacher: Network,
    images: RunImages,
    augment: AugmentConfig,
    *,
    epochs: int,
    learning_rate: float,
    quantised: bool = False,
    seed: int = 0,
    device: torch.device,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Network:
    """Trains a copy of a network on the training images, with the winner as its teacher.

    The loss is cross-entropy and, with the same weight, the divergence from the teacher's output on
    the same augmented images (Hinton et al., arXiv 1503.02531). The shared branch is not used: an
    export has none.

    Args:
        network: The network to train.
        teacher: The original network.
        images: Images of the run; validation images are not trained on.
        augment: Augmentation of the training images.
        epochs: Number of epochs.
        learning_rate: Peak rate of AdamW; it falls to zero on a cosine.
        quantised: Whether to train with int8 rounding. Batch norms then keep their statistics,
            because values that are folded into the weights must not change.
        seed: Seed of order and augmentation.
        device: Device of the training.
        on_epoch: Receives the epoch, from 1, and its mean loss.

    Returns:
        The trained copy, in eval mode on the CPU.
    """
    student = copy.deepcopy(network).to(device).to(memory_format=torch.channels_last)
    teacher = copy.deepcopy(teacher).to(device).eval()
    student.requires_grad_(True)
    student.backbone.train_last("all")
    p = images.preprocessing
    transform = Augment(augment, p.image_size, p.mean, p.std)
    train = images.dataset.train_index
    steps = max(1, len(train) // _BATCH)
    rounding: AbstractContextManager[None] = fake_quantised(student) if quantised else nullcontext()
    with rounding, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Made inside the context, because rounding replaces the weights by other parameters.
        groups = parameter_groups(
            [each for each in student.parameters() if each.requires_grad],
            learning_rate=learning_rate,
            weight_decay=1e-4,
        )
        optimizer = create_optimizer(FinetuneStageConfig(), groups)
        for epoch in range(epochs):
            student.train()
            if quantised:
                _freeze_norms(student)
            losses = []
            batches = epoch_batches(
                images.dataset.pool, train, _BATCH, seed=seed, epoch=epoch,
                transform=transform, device=device,
            )  # fmt: skip
            with activity(f"training epoch {epoch + 1}/{epochs}", steps, "batches") as step:
                for number, batch in enumerate(batches):
                    factor = learning_rate_factor(
                        epoch * steps + number, steps * epochs, warmup=0.1, schedule="cosine"
                    )
                    set_learning_rate(optimizer, factor)
                    loss = _loss(student, teacher, batch.inputs, batch.labels)
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                    losses.append(loss.detach())
                    step.done = number + 1
            on_epoch(epoch + 1, float(torch.stack(losses).mean()))
    return student.cpu().eval().requires_grad_(False)


def _loss(student: Network, teacher: Network, inputs: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        wanted = F.log_softmax(teacher.infer(inputs) / _TEMPERATURE, dim=1)
    logits = student.infer(inputs)
    divergence = F.kl_div(
        F.log_softmax(logits / _TEMPERATURE, dim=1), wanted, log_target=True, reduction="batchmean"
    )
    return F.cross_entropy(logits, labels) + _TEMPERATURE**2 * divergence


def _freeze_norms(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
