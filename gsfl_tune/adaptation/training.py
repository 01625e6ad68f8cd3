"""Trains a bundle's network on images without labels; resumable at every epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from gsfl_tune.activity import activity
from gsfl_tune.adaptation.images import AdaptedTo
from gsfl_tune.adaptation.settings import Settings
from gsfl_tune.adaptation.shot import diversity_of, entropy_of, pseudo_labels, terms
from gsfl_tune.bundles import Preprocessing
from gsfl_tune.data import Augment, DecodedImages, center_crop, epoch_batches, eval_batches
from gsfl_tune.data.loader import epoch_order
from gsfl_tune.experiment.data_config import AugmentConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import Network
from gsfl_tune.models.frozen import gpu_has_bf16
from gsfl_tune.run import EpochLog
from gsfl_tune.run.layout import CHECKPOINT_FILE, EPOCHS_FILE
from gsfl_tune.training.batch_norm import NORM_BATCHES, fresh_statistics, norms_in_training
from gsfl_tune.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from gsfl_tune.training.optim import learning_rate_factor, parameter_groups, set_learning_rate
from gsfl_tune.training.seeds import mix

_BATCH = 64
_WARMUP = 0.1
_DECAY = 1e-4


class AdaptationFailed(Exception):
    """Raised for an adaptation that gives no usable network; with the reason."""


@dataclass(frozen=True)
class Look:
    """Holds what a network makes of all images.

    Attributes:
        predictions: (N,) int64 answers.
        labels: (N,) int64 pseudo-labels.
        counts: (C,) images of each answer.
        entropy: Mean entropy of an answer, in nats.
        spread: Entropy of the mean answer, in nats.
    """

    predictions: Tensor
    labels: Tensor
    counts: list[int]
    entropy: float
    spread: float

    @property
    def loss(self) -> float:
        """Returns entropy minus spread, low for sure and diverse answers."""
        return self.entropy - self.spread

    @property
    def agreement(self) -> float:
        """Returns the share of images whose pseudo-label is the answer."""
        return float((self.labels == self.predictions).double().mean())


class Adapting:
    """Trains a network on images without labels, an epoch at a time.

    The random numbers of an epoch are a function of (seed, epoch), pseudo-labels one of the network
    at its start. So an adaptation that is resumed equals one that was not interrupted: bit for bit
    on a CPU with the same number of threads.

    Args:
        network: The bundle's network on its device; it is trained, except for its classifier.
        images: What it is adapted to.
        settings: Settings, already checked.
        preprocessing: Of the bundle.
        augment: Crop and flip of the training images.
        train_size: Side of the training images in pixels.
        directory: Folder of ``epochs.jsonl`` and ``checkpoint.pt``.

    Attributes:
        epoch: Number of trained epochs.
        first: Answers (N,) before the first epoch; None until then.
        renews: Whether batch norms of trained blocks take statistics of these images.
    """

    def __init__(
        self,
        network: Network,
        images: AdaptedTo,
        settings: Settings,
        preprocessing: Preprocessing,
        augment: AugmentConfig,
        train_size: int,
        directory: Path,
    ) -> None:
        self.network = network.to(memory_format=torch.channels_last)
        self.images = images.images
        self.settings = settings
        self.epoch = 0
        self.first: Tensor | None = None
        self.renews = settings.norms == "new"
        self._how = preprocessing
        self._device = next(network.parameters()).device
        self._autocast = gpu_has_bf16(self._device)
        self._transform = Augment(augment, train_size, preprocessing.mean, preprocessing.std)
        self._checkpoint = directory / CHECKPOINT_FILE
        self.log = EpochLog(directory / EPOCHS_FILE)
        parameters = trained_parameters(network, settings)
        groups = parameter_groups(
            parameters, learning_rate=settings.learning_rate, weight_decay=_DECAY
        )
        self._optimizer = torch.optim.AdamW(groups, fused=True)
        self._look: Look | None = None

    @property
    def finished(self) -> bool:
        """Returns whether the last epoch is trained."""
        return self.epoch >= self.settings.epochs

    @property
    def steps(self) -> int:
        """Returns the steps of an epoch: full batches."""
        return len(self.images) // self.settings.batch_size

    def begin(self) -> dict[str, Any]:
        """Looks at the images before the first epoch, and records what is found.

        Here it is decided whether batch norms take statistics of the images: with ``norms: auto``
        if answers are then surer or more diverse, by entropy minus spread. They are not always:
        where a network was trained with other statistics than those of its images, as happens in a
        short fine-tuning, new ones make it worse without any shift.
        """
        look = self.look()
        self.first = look.predictions
        kept = {norm: [each.clone() for each in norm.buffers()] for norm in self._norms()}
        if not kept:
            self.renews = False
        elif self.settings.norms != "kept":
            self._renew_norms()
            new = self._looked()
            self.renews = self.settings.norms == "new" or new.loss < look.loss
            self._look = new if self.renews else look
            for norm, buffers in kept.items() if not self.renews else ():
                for own, before in zip(norm.buffers(), buffers, strict=True):
                    own.copy_(before)
        record = {"epoch": 0, **self._seen(look), "new_norms": self.renews}
        self.record(record)
        return record

    def run_epoch(self) -> dict[str, Any]:
        """Trains the next epoch and records it.

        Returns:
            ``epoch`` (from 1), ``train/...``: loss and its terms (means over steps); of all images
            afterwards ``entropy``, ``spread``, ``agreement`` of pseudo-labels with answers, share
            ``changed`` of answers that are not the first ones, ``counts`` of answers by class;
            ``seconds``.

        Raises:
            AdaptationFailed: If the loss was NaN or infinite, or all images have one answer.
        """
        started = time.perf_counter()
        labels = self.look().labels
        seed = mix(self.settings.seed, self.epoch)
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            means = self._train(labels)
        number = self.epoch + 1
        if bad := [name for name, value in means.items() if not math.isfinite(value)]:
            raise AdaptationFailed(
                f"non-finite {', '.join(bad)} in epoch {number}; a lower --learning-rate may help"
            )
        if self.renews:
            self._renew_norms()
        self._look = None
        self.epoch = number
        look = self.look()
        record: dict[str, Any] = {"epoch": number}
        record |= {f"train/{name}": round(value, 6) for name, value in means.items()}
        record |= self._seen(look)
        self._refuse_collapse(look)
        record["seconds"] = round(time.perf_counter() - started, 3)
        self.record(record)
        return record

    def look(self) -> Look:
        """Looks at all images with the present weights; computed once for each epoch."""
        if self._look is None:
            self._look = self._looked()
        return self._look

    @torch.no_grad()
    def logits(self, images: DecodedImages) -> np.ndarray:
        """Computes class scores (N, C) float32 of whole images with the present weights."""
        self.network.eval()
        rows = []
        with activity("judging", len(images), "images") as step:
            for inputs in self._whole(images, np.arange(len(images))):
                rows.append(self.network.infer(inputs).float().cpu())
                step.done += len(inputs)
        return torch.cat(rows).numpy()

    def record(self, record: dict[str, Any]) -> None:
        """Appends a record to ``epochs.jsonl`` and writes the checkpoint of its epoch."""
        self.log.append(record)
        state = {
            "epoch": self.epoch,
            "first": self.first,
            "renews": self.renews,
            "network": dict(_tensors(self.network)),
            "optimizer": self._optimizer.state_dict(),
        }
        save_checkpoint(self._checkpoint, state)

    def restore(self) -> bool:
        """Continues from ``checkpoint.pt`` and cuts ``epochs.jsonl`` back to its epoch.

        Returns:
            Whether there was a checkpoint.

        Raises:
            UserError: If the file is broken.
        """
        try:
            state = load_checkpoint(self._checkpoint)
        except CheckpointError as error:
            raise UserError(
                f"{error}; remove {self._checkpoint.parent} and begin without --resume"
            ) from error
        if state is None:
            self.log.truncate(-1)
            return False
        with torch.no_grad():
            for name, tensor in _tensors(self.network):
                tensor.copy_(state["network"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.first = state["epoch"], state["first"]
        self.renews = state["renews"]
        self.log.truncate(self.epoch)
        return True

    def _train(self, labels: Tensor) -> dict[str, float]:
        settings, network, names = self.settings, self.network, ("entropy", "diversity", "pseudo")
        total = self.steps * settings.epochs
        sums = torch.zeros(4, device=self._device)
        targets = labels.to(self._device)
        for norm in self._norms():
            norm.train(self.renews)
        batches = epoch_batches(
            self.images,
            np.arange(len(self.images)),
            settings.batch_size,
            seed=settings.seed,
            epoch=self.epoch,
            transform=self._transform,
            device=self._device,
        )
        what = f"adapting, epoch {self.epoch + 1} of {settings.epochs}"
        with closing(batches), activity(what, self.steps, "steps") as shown:  # type: ignore[type-var]
            for number, batch in enumerate(batches):
                with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
                    features = network.features(batch.inputs)
                logits = network.classify(features.float()).float()
                found = terms(logits, targets[batch.positions.to(self._device)])
                loss = found.loss(settings.beta)
                self._optimizer.zero_grad(set_to_none=True)
                loss.backward()
                step = self.epoch * self.steps + number
                factor = learning_rate_factor(step, total, warmup=_WARMUP, schedule="cosine")
                set_learning_rate(self._optimizer, factor)
                self._optimizer.step()
                sums += torch.stack([loss, *found]).detach()
                shown.done = number + 1
        means = (sums / self.steps).tolist()
        return dict(zip(("loss", *names), means, strict=True))

    def _norms(self) -> list[_BatchNorm]:
        """Puts the network into training mode, and returns the batch norms that are in it too."""
        return norms_in_training(self.network.train())

    @torch.no_grad()
    def _renew_norms(self) -> None:
        """Gives trained batch norms statistics of whole images, as the network is used.

        Running means follow slowly, of some models by a hundredth in a step, and few images make
        few steps.
        """
        self.network.train()
        # Shuffled, as images of a folder in their order are of few classes.
        order = epoch_order(self._every, self.images.labels, seed=self.settings.seed, epoch=0)
        with fresh_statistics(self.network) as needed:
            if needed:
                for inputs in islice(self._whole(self.images, order), NORM_BATCHES):
                    # A smaller last batch has a poorer variance, one image may have none.
                    if len(inputs) == min(len(order), _BATCH):
                        self.network.features(inputs)

    @torch.no_grad()
    def _looked(self) -> Look:
        self.network.eval()
        features, scores = [], []
        with activity("pseudo-labels", len(self.images), "images") as step:
            for inputs in self._whole(self.images, self._every):
                output = self.network(inputs)
                features.append(output.discriminative.float())
                scores.append(output.logits.float().log_softmax(dim=1))
                step.done += len(inputs)
        answers = torch.cat(scores)
        if not torch.isfinite(answers).all():
            raise AdaptationFailed("the answers are not finite; a lower --learning-rate may help")
        predictions = answers.argmax(dim=1)
        counts = torch.bincount(predictions, minlength=answers.shape[1])
        return Look(
            predictions.cpu(),
            pseudo_labels(torch.cat(features), answers.exp()).cpu(),
            counts.tolist(),
            float(entropy_of(answers).mean()),
            float(diversity_of(answers)),
        )

    def _seen(self, look: Look) -> dict[str, Any]:
        first = look.predictions if self.first is None else self.first
        return {
            "entropy": round(look.entropy, 6),
            "spread": round(look.spread, 6),
            "agreement": round(look.agreement, 6),
            "changed": round(float((look.predictions != first).double().mean()), 6),
            "counts": look.counts,
        }

    def _refuse_collapse(self, look: Look) -> None:
        assert self.first is not None
        if max(look.counts) == len(self.images) and len(self.first.unique()) > 1:
            raise AdaptationFailed(
                f"the answers collapsed in epoch {self.epoch}: all {len(self.images):,} images "
                f"have one class, where there were {len(self.first.unique())}; a lower "
                "--learning-rate, a larger --batch-size or fewer --blocks may help"
            )

    def _whole(self, images: DecodedImages, index: np.ndarray) -> Iterator[Tensor]:
        how = self._how

        def transform(squares: Tensor) -> Tensor:
            return center_crop(squares, how.image_size, how.mean, how.std)

        for batch in eval_batches(images, index, _BATCH, transform=transform, device=self._device):
            yield batch.inputs.contiguous(memory_format=torch.channels_last)

    @cached_property
    def _every(self) -> np.ndarray:
        return np.arange(len(self.images))


def trained_parameters(network: Network, settings: Settings) -> list[torch.nn.Parameter]:
    """Makes the parts trainable that an adaptation trains, and freezes all others.

    Args:
        network: A bundle's network; changed in place.
        settings: Its settings.

    Returns:
        The parameters that are trained.
    """
    network.requires_grad_(False)
    found = list(network.backbone.train_last(settings.blocks, settings.part))
    if settings.train_encoder:
        for part in (network.pooling, network.head.discriminative):
            found += part.requires_grad_(True).parameters()
    return found


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
