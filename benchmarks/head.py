"""The head stage: a step of GSFL-Net against one of the plain head, and both against bare loops.

Latent size 512 on features of 1,280 dimensions, batches of 64, AdamW, 45 steps an epoch (3,000
images, about what the shared clothing photographs have). The features are random unit vectors:
time does not depend on what they are. Ours is the head stage of a trial, as the search runs it:
gathering, the learning-rate schedule, the means of the losses and the update of the centres
included. The bare loops (`_bare.py`) are the same arithmetic as a user writes it in plain torch:
one with cross-entropy alone, one with the GSFL terms written straight from the formulas.

Once with one thread, which is what a search gives a trial on a CPU, and once with torch's default.
The sides take turns; the first round is not counted; ratios are medians over rounds. On a GPU the
share of the card's measured bf16 matrix rate is shown too (the head computes in float32).

    python benchmarks/head.py              # about a minute on two cores
    python benchmarks/head.py --quick      # a smoke run: ten seconds
    python benchmarks/head.py --profile    # besides, the operations that take most of an epoch
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from _bare import Gsfl, Plain, train
from _gpu import matmul_rate, operations
from _report import publish, spread, table
from torch import Tensor
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from gsfl_tune.experiment.config import Config
from gsfl_tune.training import Training, Workspace
from gsfl_tune.training.caches.feature_table import FeatureTable
from gsfl_tune.training.stages import HeadStage

DIM, LATENT, BATCH = 1280, 512, 64
DROPOUT, SCALE, GROUPS = 0.28, 11.8, 8
Epoch = Callable[[int], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=45, help="of an epoch")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    rounds, steps = (2, 5) if args.quick else (args.rounds, args.steps)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    default = torch.get_num_threads()
    texts = []
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(config("gsfl", device).data, cache_dir=Path(folder))
        for threads in [default] if device.type == "cuda" else sorted({1, default}):
            torch.set_num_threads(threads)
            texts.append(compare(sides(workspace, device, steps), threads, rounds, steps))
        if args.profile:
            texts.append(profiled(sides(workspace, device, steps), device))
    publish("head", "The head stage against bare loops", "\n\n".join(texts), save=not args.quick)


def config(head: str, device: torch.device) -> Config:
    return Config.model_validate(
        {
            "name": "benchmark",
            "data": {
                "source": "typefaces",
                "image_size": 32,
                "typefaces": {"train": 6, "test": 2, "size": 32},
            },
            "model": {
                "backbone": "tf_efficientnet_lite0",
                "weights": "none",
                "head": head,
                "latent_dim": LATENT,
                "dropout": DROPOUT,
                "feature_scale": SCALE,
                "groups": {"method": "random", "count": GROUPS},
            },
            "training": {
                "device": device.type,
                "head": {"epochs": 1000, "batch_size": BATCH},
            },
        }
    )


def sides(workspace: Workspace, device: torch.device, steps: int) -> dict[str, Epoch]:
    """An epoch of every side."""
    generator = torch.Generator().manual_seed(0)
    features = functional.normalize(torch.randn(steps * BATCH, DIM, generator=generator), dim=1)
    classes = workspace.dataset.class_count
    labels = torch.randint(classes, (len(features),), generator=generator).to(device)

    def ours(head: str) -> Epoch:
        training = Training(config(head, device), workspace, workspace.cache_dir)
        training.context.train_positions = torch.arange(len(features))
        training.context.labels = labels
        stage = HeadStage(training.context)
        # What the cache would give.
        stage.__dict__["_trained"] = FeatureTable([features], device)

        def epoch(number: int) -> None:
            stage.train_epoch(number, number)

        return epoch

    def bare(head: str) -> Epoch:
        groups = torch.arange(classes) % GROUPS
        sizes = (DIM, LATENT, classes, DROPOUT, SCALE)
        module = Plain(*sizes) if head == "plain" else Gsfl(*sizes, groups)
        module.to(device).train()
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
        table = features.to(device)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for index in torch.randperm(len(table), device=device).split(BATCH):
                yield table[index], labels[index]

        def epoch(number: int) -> None:
            train(module, lambda f: f, optimizer, batches())

        return epoch

    return {
        "bare loop, plain head": bare("plain"),
        "ours, plain head": ours("plain"),
        "bare loop, GSFL-Net": bare("gsfl"),
        "ours, GSFL-Net": ours("gsfl"),
    }


def compare(epochs: dict[str, Epoch], threads: int, rounds: int, steps: int) -> str:
    """All sides in turns, as Markdown."""
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(rounds + 1):
        for name, epoch in epochs.items():
            started = time.perf_counter()
            epoch(number)
            if number:
                seconds[name].append(time.perf_counter() - started)
    rate = matmul_rate() if torch.cuda.is_available() else 0.0
    rows = []
    for name, values in seconds.items():
        speed = steps * BATCH / statistics.median(values)
        row = [name, spread([1000 * value / steps for value in values], ".2f"), f"{speed:,.0f}"]
        if rate:
            row.append(f"{speed * arithmetic(name) / rate:.1%}")
        rows.append(row)
    header = ["side", "ms a step", "images/s", *(["share of the bf16 rate"] if rate else [])]

    def ratio(one: str, other: str) -> str:
        return spread([a / b for a, b in zip(seconds[one], seconds[other], strict=True)], ".2f")

    return (
        f"{threads} thread{'s' if threads > 1 else ''}, {rounds} rounds of {steps} steps:\n\n"
        f"{table(header, rows)}\n\n"
        f"- GSFL-Net / plain head, ours: {ratio('ours, GSFL-Net', 'ours, plain head')} times the "
        "time of a step (target: at most 3.5)\n"
        f"- GSFL-Net / plain head, bare: {ratio('bare loop, GSFL-Net', 'bare loop, plain head')}\n"
        f"- ours / bare, plain head: {ratio('ours, plain head', 'bare loop, plain head')}\n"
        f"- ours / bare, GSFL-Net: {ratio('ours, GSFL-Net', 'bare loop, GSFL-Net')}"
    )


def arithmetic(name: str) -> int:
    """Operations of one image in a step: forward and backward."""
    sizes = (DIM, LATENT, 21, DROPOUT, SCALE)
    groups = torch.arange(21) % GROUPS
    module = Plain(*sizes) if "plain" in name else Gsfl(*sizes, groups)
    f, y = torch.randn(BATCH, DIM), torch.zeros(BATCH, dtype=torch.int64)
    return operations(lambda: module.loss(f, y).backward()) // BATCH


def profiled(epochs: dict[str, Epoch], device: torch.device) -> str:
    """The operations that take most of an epoch of ours, as text."""
    activities, key = [ProfilerActivity.CPU], "self_cpu_time_total"
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
        key = "self_device_time_total"
    texts = []
    for name in ("ours, plain head", "ours, GSFL-Net"):
        epochs[name](0)
        with profile(activities=activities) as recorded:
            epochs[name](1)
        found = recorded.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=40)
        texts.append(f"{name}:\n\n```\n{found.strip()}\n```")
    return "Where the time goes. " + "\n\n".join(texts)


if __name__ == "__main__":
    main()
