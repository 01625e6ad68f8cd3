"""The finetune stage: trains the backbone, or its last blocks, and the head on augmented images."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import cached_property, partial
from itertools import islice
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from gsfl_tune.activity import activity
from gsfl_tune.data import Batch, DecodedImages
from gsfl_tune.data.adain import StatisticsSwap
from gsfl_tune.data.fourier import FourierSwap
from gsfl_tune.data.mixing import Mixing
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.config import FinetuneStageConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.methods import Passes
from gsfl_tune.models import Granular, Network, seed_drop_paths, seed_mix_styles
from gsfl_tune.models.grouped_convs import keep_grouped_convs_full, restore_grouped_convs
from gsfl_tune.training.batch_norm import (
    NORM_BATCHES,
    fresh_statistics,
    synchronise_batch_norms,
)
from gsfl_tune.training.batches import (
    ActivationBatches,
    Batches,
    SplitBatches,
    create_batches,
)
from gsfl_tune.training.context import StageContext
from gsfl_tune.training.layers import method_layers
from gsfl_tune.training.optim import create_optimizer, training_point
from gsfl_tune.training.part_scores import watching_parts
from gsfl_tune.training.stages._base import Stage
from gsfl_tune.training.stages.averaged_problems import refuse_averages
from gsfl_tune.training.stages.compiler_errors import explained
from gsfl_tune.training.stages.finetune_work import finetune_work
from gsfl_tune.training.stages.meter import LossMeter
from gsfl_tune.training.stages.method_problems import method_problems
from gsfl_tune.training.stages.trained_blocks import (
    group_sizes,
    prepare_backbone,
    stage_groups,
    unfrozen_blocks,
)
from gsfl_tune.training.timeline import StageName

log = logging.getLogger("gsfl_tune.training")

P = ParamSpec("P")
T = TypeVar("T")
_DEPTH = "drop_path"
_STYLE = "mixstyle"
_WORDS = {"pool": "validating", "test": "testing"}


class FinetuneStage(Stage[Network, FinetuneStageConfig]):
    """Trains a copy of the pretrained backbone together with the head.

    If only the last blocks are trained, the others run as a fast copy. With fixed views they do not
    run at all, as their activations are cached.
    """

    needs_device = True
    takes_unlabelled = True
    work = staticmethod(finetune_work)

    def __init__(
        self,
        context: StageContext,
        name: StageName = "finetune",
        before: Mapping[str, Tensor] | None = None,
    ) -> None:
        config = context.config.training.finetune
        self._has_compiled = False
        network = context.network(context.workspace.new_backbone(context.config))
        if before is not None:
            network.load_state_dict(before)
        network.to(device=context.device).to(memory_format=torch.channels_last)
        if context.autocast:
            keep_grouped_convs_full(network.backbone)
        prepare_backbone(context, network.backbone)
        groups = stage_groups(context, network)
        super().__init__(context, name, config, network, create_optimizer(config, groups))
        refuse_averages(config, averaged=self.averaged is not None)
        self._batches: Batches = create_batches(context, network)
        cached = isinstance(self._batches, ActivationBatches)
        for path, message in method_problems(
            context.config, cached=cached, maps=self._batches.maps(network) is not None
        ):
            raise UserError(f"{path}: {message}")

    def network(self) -> Network:
        """Copies the network; adapters become part of its weights."""
        return _plain(self.evaluated)

    def handed_on(self) -> Mapping[str, Tensor]:
        """Returns the trained network, not the average: like the head, it goes on from there."""
        return _plain(self.module).state_dict()

    def load_state_dict(self, state: Mapping[str, Any], *, to_train: bool = True) -> None:
        """Restores the state; a training of an earlier version goes on with its weight decay."""
        stored = state["optimizer"]["param_groups"]
        if to_train and group_sizes(stored) != group_sizes(self.optimizer.param_groups):
            groups = stage_groups(self.context, self.module, as_before=True)
            self.optimizer = create_optimizer(self.config, groups)
            if self.shards is not None:
                self.shards.adopt(self.optimizer)
            self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        super().load_state_dict(state, to_train=to_train)

    @property
    def batches(self) -> int:
        """Returns the number of full micro-batches."""
        return max(1, len(self.context.train_positions) // self.config.batch_size)

    @cached_property
    def _features(self) -> Callable[[Tensor], Tensor]:
        """Returns a function from inputs to unit features, with the trained weights."""
        return self._compiled(self._batches.features(self.module))

    @cached_property
    def _maps(self) -> Callable[[Tensor], Tensor] | None:
        """Returns a function from inputs to maps, with the trained weights."""
        maps = self._batches.maps(self.module)
        return maps and self._compiled(maps)

    @cached_property
    def _layers(self) -> Callable[[Tensor, int], Tensor] | None:
        """Returns a function from inputs to maps behind trained blocks, with the trained weights.

        It is not compiled: a pass for a layer is left before it ends.
        """
        layers = method_layers(self.context.config, self.context.method)
        maps, backbone = self._batches.maps(self.module), self.module.backbone
        if maps is None or not layers:
            return None

        def layer(inputs: Tensor, following: int) -> Tensor:
            if following == 0:
                return maps(inputs)
            return backbone.layer(layers[following].stop, partial(maps, inputs))

        return layer

    def _compiled(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        if not self.config.compile:
            return function
        if not self._has_compiled:
            # Code compiled for earlier trials of this process is useless and counts against a
            # limit.
            torch.compiler.reset()
            self._has_compiled = True
        compiled: Callable[[Tensor], Tensor] = torch.compile(function, dynamic=False)
        return compiled

    # Made for every step. Stored, it would be a reference cycle that keeps the memory.
    @property
    def passes(self) -> Passes:
        """Returns the passes through the trained network."""
        return self._passes(self.module, self._features, self._maps, self._layers)

    def extras(self) -> Mapping[str, Any]:
        """Returns what the last pass adds to `LossInput.extras`, once."""
        return self.module.extras()

    def _passes(
        self,
        network: Network,
        features: Callable[[Tensor], Tensor],
        maps: Callable[[Tensor], Tensor] | None = None,
        layers: Callable[[Tensor, int], Tensor] | None = None,
    ) -> Passes:
        under = self._under_autocast
        granular: Callable[[Tensor], Granular] | None = None
        if maps and network.granularities is not None:
            # Not compiled: what enters blocks is noted.
            own = self._batches.maps(network)
            assert own is not None

            def granular(inputs: Tensor) -> Granular:
                return network.granular(partial(own, inputs))

        return Passes(
            features=under(features),
            head=under(network.head),
            infer=network.head.infer,
            loss=self.loss,
            parameters=[p for p in self.parameters if p.requires_grad],
            maps=maps and under(maps),
            pool=under(network.pool_maps) if maps else None,
            layer=layers and under(layers),
            recurrent=network.recurrent if maps else None,
            parts=under(network.pool_parts) if maps and network.parts else None,
            attended=under(network.pool_attended) if maps and network.attention else None,
            granularities=network.granularities if maps else None,
            granular=granular and under(granular),
            classifier=network.head.classifier.weight.detach() if maps else None,
            cross_entropy=self.cross_entropy,
            draws=self.draws,
            evaluating=self.evaluating,
        )

    def train_epoch(self, epoch: int, seed: int) -> dict[str, float]:
        """Trains one epoch; images that do not fill a micro-batch are left out of it."""
        config, context = self.config, self.context
        images = len(context.train_positions)
        micro_batches = self.batches
        # A rank sees its share of it.
        whole, ranks = min(images, config.batch_size), context.share.size
        per_epoch = -(-micro_batches // config.accumulate)
        total = per_epoch * config.epochs
        meter = LossMeter()
        mixing, streams = Mixing(config.mixup, config.cutmix), Streams(seed)
        swap = FourierSwap(config.fourier, config.fourier_band)
        restyle = StatisticsSwap(config.adain)
        batches = self._batches.train_batches(epoch, seed)
        self._seed_drop_paths(seed)
        self.module.backbone.unfreeze(unfrozen_blocks(epoch, config.unfreeze))
        if config.mixstyle > 0:
            seed_mix_styles(self.module, self._drawn(seed, _STYLE))
        self.module.train()
        context.method.train()
        with explained(), training_point(self.optimizer):
            for number, batch in enumerate(batches):
                step, place = divmod(number, config.accumulate)
                # The last step of an epoch may hold fewer micro-batches than the others.
                held = min(config.accumulate, micro_batches - step * config.accumulate)
                mixed = mixing(restyle(swap(self._described(batch), streams), streams), streams)
                # The same number of pieces on every rank: that of the smallest share.
                for part in self._micro_batches(mixed, whole // ranks):
                    taught = self._batches.taught(part)
                    meter.add(self._step(taught, len(part) / whole / held), len(part))
                if place + 1 == held:
                    self._update(epoch * per_epoch + step, total)
                self._step_of_epoch.done = number + 1
        if config.optimizer == "schedule_free":
            with closing(self._batches.train_batches(epoch, seed)) as again:
                self._renew_norms(islice(again, NORM_BATCHES))
        return meter.means(context.ranks)

    @torch.no_grad()
    def _renew_norms(self, batches: Iterable[Batch]) -> None:
        """Passes batches through weights that norms have not seen: those that are used."""
        context = self.context
        whole = min(len(context.train_positions), self.config.batch_size) // context.share.size
        # Not compiled, as it would be once more for passes without gradients.
        passes = self._passes(self.module, self._batches.features(self.module))
        with fresh_statistics(self.module) as needed:
            for batch in batches if needed else ():
                for part in self._micro_batches(batch, whole):
                    passes.features(part.views[0])

    def _seed_drop_paths(self, seed: int) -> None:
        if self.config.drop_path == 0:
            return
        generator = torch.Generator(self.context.device)
        seed_drop_paths(self.module, generator.manual_seed(self._drawn(seed, _DEPTH)))

    def _drawn(self, seed: int, name: str) -> int:
        """Returns the seed of a stream of an epoch; each rank draws for its own images."""
        rank = self.context.share.rank
        streams = Streams(seed, *([rank] if rank else []))
        return int(torch.randint(2**62, (), generator=streams(name)))

    def divide(self, size: int) -> None:
        """Prepares for batches that `size` ranks share, at least one image for each.

        Raises:
            UserError: When a batch has fewer.
        """
        if min(len(self.context.train_positions), self.config.batch_size) < size:
            raise UserError(
                f"training.finetune.batch_size: found {self.config.batch_size} for "
                f"{len(self.context.train_positions)} images, allowed at least one image for "
                f"each of the {size} processes of a trial (search.resources)"
            )
        # Also those of blocks that are trained later.
        self.module.backbone.unfreeze(None)
        synchronise_batch_norms(self.module.train())

    def rehearse(self) -> None:
        """Takes one optimiser step on random inputs."""
        inputs = self._batches.random(self.config.batch_size)
        self.module.train()
        batch = self._random_batch(inputs)
        with explained(), training_point(self.optimizer):
            self._step(self._batches.taught(batch))
            self._update(0, 1)
        if self.config.optimizer == "schedule_free":
            self._renew_norms([batch])

    def logits(self, images: DecodedImages, part: str, index: np.ndarray) -> Tensor:
        """Returns logits of whole images through the network."""
        network, method = self.evaluated.eval(), self.context.method.eval()
        passes = self._passes(network, self._batches.eval_features(network))
        rows = []
        # Weights that are joined for a pass belong to the training too.
        without_gradients = torch.inference_mode if self.shards is None else torch.no_grad
        with (
            without_gradients(),
            activity(_WORDS[part], len(index), "images") as step,
            watching_parts(self._batches.part_scores, network.parts, part, index),
        ):
            for inputs in self._evaluated(images, part, index):
                rows.append(method.predict(inputs, passes).float().cpu())
                step.done += len(inputs)
        return torch.cat(rows)

    @property
    def exact(self) -> bool:
        """Returns whether all blocks compute in fp32, of activations that are not rounded."""
        context, cached = self.context, isinstance(self._batches, ActivationBatches)
        rounded = cached and context.config.training.cache_precision != "fp32"
        # Only a copy of the frozen blocks, or what is stored of them, has a precision of its own.
        apart = cached or isinstance(self._batches, SplitBatches)
        return not (context.autocast or (apart and context.frozen_bf16) or rounded)

    @contextmanager
    def made_exact(self) -> Iterator[None]:
        """Computes as a bundle does, with batches of that precision."""
        own = self._batches
        with super().made_exact():
            self._batches = self._exact_batches
            try:
                yield
            finally:
                self._batches = own

    @cached_property
    def _exact_batches(self) -> Batches:
        """Returns the batches of `made_exact`: their frozen blocks are converted once."""
        return create_batches(self.context, self.module)

    def measured(self) -> dict[str, float]:
        """Returns how well parts were found in the images of the last validation."""
        scores = self._batches.part_scores
        return {} if scores is None else scores.numbers(self.context.ranks)

    @torch.inference_mode()
    def unit_features(self, part: Literal["pool", "test"], index: np.ndarray) -> Tensor:
        """Returns what the head reads of images, on the CPU, with the validated weights."""
        dataset = self.context.workspace.dataset
        images = dataset.pool if part == "pool" else dataset.test
        features = self._unit_features(self.evaluated.eval(), images, part, index)
        return torch.cat([batch.float().cpu() for batch in features])

    @torch.inference_mode()
    def discriminative(self, index: np.ndarray) -> Tensor:
        """Returns discriminative parts of pool images."""
        network = self.module.eval()
        pool = self.context.workspace.dataset.pool
        features = self._unit_features(network, pool, "pool", index)
        return torch.cat([network.head(batch).discriminative.float() for batch in features])

    def _unit_features(
        self, network: Network, images: DecodedImages, part: str, index: np.ndarray
    ) -> Iterator[Tensor]:
        passes = self._passes(network, self._batches.eval_features(network))
        return (passes.features(inputs) for inputs in self._evaluated(images, part, index))

    def _evaluated(self, images: DecodedImages, part: str, index: np.ndarray) -> Iterator[Tensor]:
        """Yields un-augmented inputs, in pieces that fit into memory."""
        for batch in self._batches.eval_batches(images, part, index):
            yield from batch.chunk(self.context.pieces)

    def _under_autocast(self, function: Callable[P, T]) -> Callable[P, T]:
        def computed(*args: P.args, **settings: P.kwargs) -> T:
            with self._autocast():
                return function(*args, **settings)

        return computed

    def _autocast(self) -> AbstractContextManager[object]:
        if self.context.autocast:
            return torch.autocast(self.context.device.type, dtype=torch.bfloat16)
        return nullcontext()


def _plain(network: Network) -> Network:
    """Copies a network; adapters become part of its weights."""
    network = copy.deepcopy(network)
    network.backbone.merge()
    restore_grouped_convs(network)
    return network
