"""Changes of images in the finetune stage, against matrix products on the same core.

Prices count a change in operations of a matrix product that take as long, for each pixel of an
image: `gsfl_tune.training.stages.changes_work`. Each change is timed beside images with crop and
flip alone, in turns; the difference counts. The rate is that of products of square float32
matrices, on one thread; all times are those of the core. Changes of a batch, which swap what images
look like, are timed alone. Freed memory is kept, as in trainings.

    python benchmarks/changes.py            # about two minutes
    python benchmarks/changes.py --quick    # a smoke run
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from _report import publish, spread, table

from gsfl_tune.data import Augment, Batch, Targets, square_side
from gsfl_tune.data.adain import StatisticsSwap
from gsfl_tune.data.fourier import FourierSwap
from gsfl_tune.data.transforms import Streams
from gsfl_tune.experiment.data_config import AugmentConfig
from gsfl_tune.heap import keep_freed
from gsfl_tune.training.stages import changes_work

SIZES = (160, 224)
MATRIX = 1024
# What prices may be off by.
FACTOR = 2
STATISTICS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# With the operations that a price counts for each.
OF_IMAGES: dict[str, tuple[dict[str, Any], float]] = {
    "color: 0.4": ({"color": 0.4}, changes_work.COLOUR),
    "policy: trivial": ({"policy": "trivial"}, changes_work.OPERATION),
    "degrade: 1": ({"degrade": 1.0}, changes_work.DEGRADE),
}
OF_BATCHES: dict[str, tuple[Any, float]] = {
    "fourier: 1": (FourierSwap(1.0), changes_work.FOURIER),
    "adain: 1": (StatisticsSwap(1.0), changes_work.ADAIN),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed()
    rounds, images = (1, 4) if args.quick else (args.rounds, args.images)
    found = {size: measured(size, images, rounds) for size in SIZES}
    prices = {name: price for name, (_, price) in (OF_IMAGES | OF_BATCHES).items()}
    rows = [
        (name, f"{price:,.0f}", *(spread(found[size][name], ",.0f") for size in SIZES))
        for name, price in prices.items()
    ]
    near = [
        1 / FACTOR <= statistics.median(found[size][name]) / price <= FACTOR
        for name, price in prices.items()
        for size in SIZES
    ]
    header = ("change", "price", *(f"{size} px" for size in SIZES))
    words = (
        "Operations of a matrix product that take as long as the change, for each pixel of an "
        f"image: median (smallest to largest) of {rounds} rounds with {images} images. At the end "
        f"the load of the machine was {os.getloadavg()[0]:.1f}: other work, which there should be "
        "none of, slows changes more than products.\n\n"
        f"{sum(near)} of {len(near)} medians are within a factor of {FACTOR} of their price.\n\n"
    )
    publish("changes", "Changes of images", words + table(header, rows), save=not args.quick)


def measured(size: int, images: int, rounds: int) -> dict[str, list[float]]:
    """Returns the operations of each change for a pixel, one of every round."""
    side = square_side(size)
    squares = torch.from_numpy(photographs(images, side))

    def changing(config: dict[str, Any]) -> Callable[[], object]:
        augment = Augment(AugmentConfig(**config), size, **STATISTICS)
        rows = augment.draw_rows(images, torch.Generator().manual_seed(1), Streams(1))
        return partial(augment.apply, squares, rows)

    plain = changing({})
    changes = {name: changing(config) for name, (config, _) in OF_IMAGES.items()}
    inputs = torch.randn(images, 3, size, size).contiguous(memory_format=torch.channels_last)
    batch = Batch((inputs,), Targets(torch.zeros(images, dtype=torch.int64)), torch.arange(images))
    swaps = {name: partial(swap, batch, Streams(1)) for name, (swap, _) in OF_BATCHES.items()}
    one, other = torch.randn(2, MATRIX, MATRIX)
    product = partial(torch.mm, one, other)
    found: dict[str, list[float]] = {name: [] for name in (*changes, *swaps)}
    for act in (plain, product, *changes.values(), *swaps.values()):
        act()
    for _ in range(rounds):
        # Operations a second, found in each round anew: clocks of a machine rise and fall.
        rate = 2 * MATRIX**3 / statistics.median(seconds(product) for _ in range(5))
        base = seconds(plain)
        for name, act in (changes | swaps).items():
            spent = seconds(act) - (base if name in changes else 0.0)
            found[name].append(spent * rate / (images * size * size))
    return found


def photographs(images: int, side: int) -> np.ndarray:
    """Draws squares (N, S, S, 3) uint8, smooth as photographs are, which JPEG takes notice of."""
    small = np.random.default_rng(1).integers(0, 256, (images, 3, 12, 12)).astype(np.float32)
    large = torch.nn.functional.interpolate(
        torch.from_numpy(small), size=(side, side), mode="bicubic", align_corners=False
    )
    noisy = large + 8 * torch.randn(large.shape, generator=torch.Generator().manual_seed(1))
    return noisy.clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def seconds(act: Callable[[], object]) -> float:
    """Times one call, by the time that a core spends on it."""
    started = time.thread_time()
    act()
    return time.thread_time() - started


if __name__ == "__main__":
    main()
