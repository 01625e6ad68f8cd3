"""Trains a backbone without labels; resumable at every epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from gsfl_tune.activity import activity
from gsfl_tune.data.augment import center_crop
from gsfl_tune.data.batch import Batch
from gsfl_tune.data.batch_share import WHOLE_BATCH
from gsfl_tune.data.contrast import ContrastAugment, local_augment
from gsfl_tune.data.decoded import DecodedImages
from gsfl_tune.data.loader import epoch_batches, eval_batches
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.config import Config
from gsfl_tune.models import Backbone
from gsfl_tune.models.frozen import gpu_has_bf16
from gsfl_tune.models.grouped_convs import keep_grouped_convs_full
from gsfl_tune.models.weights import SCREENING
from gsfl_tune.run import EpochLog
from gsfl_tune.run.layout import CHECKPOINT_FILE, EPOCHS_FILE
from gsfl_tune.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from gsfl_tune.training.optim import learning_rate_factor, parameter_groups, set_learning_rate
from gsfl_tune.training.pretrain.joint import JointBatch
from gsfl_tune.training.pretrain.network import PretrainingNetwork, spread, typical_spread
from gsfl_tune.training.pretrain.refused import refuse, refuse_processes
from gsfl_tune.training.pretrain.team import PretrainingRanks, PretrainingTeam
from gsfl_tune.training.seeds import mix

_BATCH = 64
# What tells a collapse: of what, and what is measured.
_SPREADS = {
    "spread": ("representations", "deviation"),
    "projected": ("projections", "typical distance"),
}


class PretrainingFailed(Exception):
    """Raised for a pretraining that cannot be used: its loss or its features; with the reason."""


class Pretraining:
    """Trains a backbone without labels, an epoch at a time.

    The random numbers of an epoch are a function of (seed, epoch), the learning rate is one of the
    step. So a pretraining resumed from a checkpoint equals one that was not interrupted: bit for
    bit on a CPU with the same number of threads.

    Args:
        config: The configuration.
        backbone: The backbone at its start; it is trained.
        images: What is learned from.
        directory: Folder of ``epochs.jsonl`` and ``checkpoint.pt``.
        key: Name of the pretraining: digest of all that decides its result.
        device: Where to train.

    Attributes:
        network: Everything with weights.
        epoch: Number of trained epochs.
        team: Processes that train with this one; None for one alone.

    Raises:
        UserError: If there are fewer images than a batch takes, both views of an image would be the
            same, the backbone cannot take their size, or a package is missing.
    """

    def __init__(
        self,
        config: Config,
        backbone: Backbone,
        images: DecodedImages,
        directory: Path,
        *,
        key: str,
        device: torch.device,
    ) -> None:
        self.config = config.pretrain
        self.images = images
        self.key = key
        self.device = device
        self.epoch = 0
        own = self.config
        self.image_size = own.image_size or config.data.image_size
        refuse(config, len(images), self.image_size)
        self.log = EpochLog(Path(directory) / EPOCHS_FILE)
        self.checkpoint_path = Path(directory) / CHECKPOINT_FILE
        autocast = uses_bf16(config, device)
        if autocast:
            keep_grouped_convs_full(backbone)
        self.network = PretrainingNetwork(
            backbone, own, self.image_size, len(images), autocast=autocast
        )
        if device.type == "mps":
            self.network.float()  # Apple's GPUs have no float64
        self.network.to(device=device).to(memory_format=torch.channels_last)
        self.mean, self.std = backbone.preprocessing
        self._optimizers = self._create_optimizers()
        self.team: PretrainingTeam | None = None
        self._ranks: PretrainingRanks | None = None

    @property
    def finished(self) -> bool:
        """Returns whether the last epoch is trained."""
        return self.epoch >= self.config.epochs

    @property
    def steps(self) -> int:
        """Returns the steps of an epoch: full batches."""
        return len(self.images) // self.config.batch_size

    def run_epoch(self) -> dict[str, Any]:
        """Trains the next epoch; it is recorded by `record`.

        Returns:
            ``epoch`` (from 1), ``train/...``: loss, its terms and the spread of representations
            and projections (means over steps), the share of dimensions that do not discriminate,
            ``seconds``.

        Raises:
            PretrainingFailed: If the loss was not finite, or features or projections collapsed.
            UserError: If its processes cannot divide a batch.
        """
        if self.team is None:
            return self._epoch()
        refuse_processes(self.config, self.team.size, self.network.groups)
        with self.team.watching():
            if self._ranks is None:
                precision = "bf16" if self.network.autocast else "fp32"
                ranks = self.team.start(self.key, precision)
                self._join(ranks)
                ranks.send(self._state())
            self.team.next_epoch()
            return self._epoch()

    def follow(self, ranks: PretrainingRanks) -> None:
        """Joins as a further rank: takes the state of rank 0, which decides from now on."""
        self._join(ranks)
        self._load(ranks.receive())

    def leave(self) -> None:
        """Releases the other ranks; the next epoch would gather them again."""
        self._ranks = None
        if self.team is not None:
            self.team.leave()

    def _join(self, ranks: PretrainingRanks) -> None:
        self._ranks = ranks
        self.network.join(JointBatch(ranks, self.config.batch_size, self.device))

    def _epoch(self) -> dict[str, Any]:
        started = time.perf_counter()
        seed = mix(self.config.seed, self.epoch)
        devices = [torch.cuda.current_device()] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            self.network.joint.begin()
            if self._ranks is not None and self._ranks.share.rank:  # its own dropout masks
                torch.manual_seed(mix(seed, self._ranks.share.rank))
            means = self._train(seed)
        number = self.epoch + 1
        terms = {name: value for name, value in means.items() if name not in _SPREADS}
        loss = self.network.weighted(terms)
        record: dict[str, Any] = {"epoch": number, "train/loss": loss}
        record |= {f"train/{name}": value for name, value in means.items()}
        bad = [name for name, value in record.items() if not math.isfinite(value)]
        if bad:
            raise PretrainingFailed(f"non-finite {', '.join(bad)} in epoch {number}")
        for name, (what, measure) in _SPREADS.items():
            if means[name] < self.config.collapse:
                raise PretrainingFailed(
                    f"the {what} collapsed in epoch {number}: their {measure} is "
                    f"{means[name]:.2g} of 1, below pretrain.collapse: {self.config.collapse:g}"
                )
        if (own := self.network.discriminative) is not None:
            record["train/not_discriminative"] = int(own.chosen.sum()) / len(own.chosen)
        record["seconds"] = round(time.perf_counter() - started, 4)
        self.epoch = number
        return record

    def record(self, record: dict[str, Any]) -> None:
        """Appends a record to ``epochs.jsonl`` and writes the checkpoint of its epoch."""
        self.log.append(record)
        self.save()

    def save(self) -> None:
        """Writes ``checkpoint.pt``."""
        save_checkpoint(self.checkpoint_path, self._state())

    def _state(self) -> dict[str, Any]:
        """Returns all that `restore` needs; the same for any number of ranks."""
        return {
            "fingerprint": self.key,
            "epoch": self.epoch,
            "network": dict(_tensors(self.network)),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def _load(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, tensor in _tensors(self.network):
                tensor.copy_(state["network"][name])
        for optimizer, each in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(each)
        self.epoch = state["epoch"]

    def restore(self, *, own: bool = False) -> bool:
        """Continues from ``checkpoint.pt`` and cuts ``epochs.jsonl`` back to its epoch.

        Args:
            own: Whether the folder is the user's. There a checkpoint of another pretraining is
                refused; in the cache nobody needs it any more, and the log begins anew.

        Returns:
            Whether there was a checkpoint of this pretraining.

        Raises:
            CheckpointError: If the file is broken, or of another pretraining in an own folder.
        """
        state = load_checkpoint(self.checkpoint_path)
        if state is None or state.get("fingerprint") != self.key:
            if own and state is not None:
                raise CheckpointError(
                    f"{self.checkpoint_path}: is of another pretraining (its settings, images, "
                    "first weights, precision or libraries differ)"
                )
            self.log.truncate(-1)
            return False
        self._load(state)
        self.log.truncate(self.epoch)
        return True

    def discard(self) -> None:
        """Removes the checkpoint, once its result is kept elsewhere."""
        self.checkpoint_path.unlink(missing_ok=True)

    def write(self, path: Path) -> None:
        """Writes the backbone's weights as safetensors, which ``model.weights`` takes.

        A screening head is beside them, for ``model.pooling: screened``.
        """
        named = dict(self.network.backbone.model.state_dict())
        if self.network.screening is not None:
            named |= zip(SCREENING, self.network.screening.folded(), strict=True)
        state = {name: each.detach().cpu().contiguous().clone() for name, each in named.items()}
        # One entry only: safetensors writes several in any order, and so other bytes each time.
        save_file(state, path, {"pretraining": self.key})

    def features(
        self, images: DecodedImages, index: np.ndarray, *, screened: bool = False
    ) -> np.ndarray:
        """Returns unit representations (N, C) float32 of whole images, with the present weights.

        Args:
            images: Decoded images.
            index: (N,) positions.
            screened: Whether places are weighted by the screening head.
        """
        self.network.eval()
        found = []
        with activity("computing representations", len(index), "images") as step:
            for batch in self._whole(images, index):
                found.append(self.network.representation(batch, screened=screened).cpu())
                step.done += len(batch)
        return torch.cat(found).numpy()

    def _whole(self, images: DecodedImages, index: np.ndarray) -> Iterator[Tensor]:
        def transform(squares: Tensor) -> Tensor:
            return center_crop(squares, self.image_size, self.mean, self.std)

        for batch in eval_batches(images, index, _BATCH, transform=transform, device=self.device):
            yield batch.inputs.contiguous(memory_format=torch.channels_last)

    def _train(self, seed: int) -> dict[str, float]:
        names, steps = self._steps(seed)
        # Summed on the CPU: some devices have no float64.
        total = torch.zeros(len(names), dtype=torch.float64)
        for row in torch.stack(steps).cpu().double():
            total += row
        whole = self.network.joint.summed(total)
        return {name: float(value) / self.steps for name, value in zip(names, whole, strict=True)}

    def _steps(self, seed: int) -> tuple[list[str], list[Tensor]]:
        """Does the steps of an epoch; returns names and values of the terms of each, float32."""
        config, network = self.config, self.network
        total = self.steps * config.epochs
        paired = self.epoch >= round(config.discriminative.warmup * config.epochs)
        generator = Streams(seed)("discriminative")
        names: list[str] = []
        steps: list[Tensor] = []
        network.train()
        what = f"epoch {self.epoch + 1} of {config.epochs}"
        with ExitStack() as stack:
            shown = stack.enter_context(activity(what, self.steps, "steps"))
            large = self._batches(stack, ContrastAugment, self.image_size, views=2)
            small: Iterable[Batch | None] = repeat(None)
            if count := config.augment.local_crops:
                side = config.augment.local_side(self.image_size)
                small = self._batches(stack, local_augment, side, views=count, first_view=2)
            for number, (batch, crops) in enumerate(zip(large, small, strict=False)):
                step = self.epoch * self.steps + number
                local = () if crops is None else crops.views
                loss, terms, vectors = network.terms(
                    batch.views, generator, paired=paired, local=local, positions=batch.positions
                )
                self._update(loss, step, total)
                terms["spread"] = network.joint.part(spread(vectors))
                terms["projected"] = network.joint.part(typical_spread(network.projected))
                names = list(terms)
                steps.append(torch.stack([value.detach().float() for value in terms.values()]))
                shown.done = number + 1
        return names, steps

    def _batches(
        self,
        stack: ExitStack,
        make: Callable[..., ContrastAugment],
        side: int,
        *,
        views: int,
        first_view: int = 0,
    ) -> Iterator[Batch]:
        """Yields the views of an epoch; iterators of other views show the same images."""
        batches = epoch_batches(
            self.images,
            np.arange(len(self.images)),
            self.config.batch_size,
            seed=self.config.seed,
            epoch=self.epoch,
            transform=make(self.config.augment, side, self.mean, self.std),
            device=self.device,
            views=views,
            first_view=first_view,
            share=WHOLE_BATCH if self._ranks is None else self._ranks.share,
        )
        return stack.enter_context(closing(batches))  # type: ignore[type-var]

    def _update(self, loss: Tensor, step: int, total: int) -> None:
        factor = learning_rate_factor(step, total, warmup=self.config.warmup, schedule="cosine")
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self._ranks is not None:
            self._ranks.add_up([p.grad for p in self.network.parameters() if p.grad is not None])
        self.network.base.after_backward(self.epoch)
        for optimizer in self._optimizers:
            set_learning_rate(optimizer, factor)
            optimizer.step()
        self.network.average((step + 1) / total)

    def _create_optimizers(self) -> list[torch.optim.Optimizer]:
        config, network = self.config, self.network
        modules = [network.backbone, network.base, network.screening]
        groups = parameter_groups(
            [p for each in modules if each for p in each.parameters() if p.requires_grad],
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        first: torch.optim.Optimizer
        if config.optimizer == "adamw":
            first = torch.optim.AdamW(groups, fused=True)
        else:
            # The prototypes of `dino` get no gradient at first: the fused one fails over that.
            fused = config.method != "dino"
            first = torch.optim.SGD(groups, lr=1e-3, momentum=config.momentum, fused=fused)
        if network.discriminative is None:
            return [first]
        decoder = parameter_groups(
            network.discriminative.decoder.parameters(),
            learning_rate=config.discriminative.decoder_learning_rate,
            weight_decay=config.weight_decay,
        )
        return [first, torch.optim.AdamW(decoder, fused=True)]


def uses_bf16(config: Config, device: torch.device) -> bool:
    """Returns whether a pretraining computes in bf16, by ``training.precision``.

    On a CPU, `with_precision` decides what `auto` is before.
    """
    if config.training.precision != "auto":
        return config.training.precision == "bf16"
    return gpu_has_bf16(device)


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields parameters and buffers, also those that a `state_dict` lacks, such as a queue."""
    yield from module.named_parameters()
    yield from module.named_buffers()
