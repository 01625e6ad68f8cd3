"""Features of a frozen backbone: ours against the loop that a user writes.

Every way gives one unit feature an image: the average of the map of EfficientNet-Lite0, L2
normalised, float32 unless it says otherwise. All use every core.

- "timm, DataLoader": `ImageFolder` with torchvision's resize and centre crop in as many persistent
  worker processes as there are cores (their start is not counted), and the timm model as it is.
- "decoded, eager": the same model on batches that are sliced from decoded squares, with
  channels_last inputs: what is left of ours without the fast forward pass.
- "ours": `FeatureExtractor`, as a search calls it on an empty feature cache. That includes making
  and checking the fast copy of the backbone, and writing the file. Decoding the files, once a node,
  is not included; the time it took is in the text.
- "ours, bf16": the fast copy alone in bfloat16, of use on CPUs with AMX.

Beside images/s stands the largest difference of any number of a unit feature from "decoded,
eager". The first way has none: Pillow resizes to other pixels. It also runs the test part, which
the others leave out; images/s count what each did.

Photographs are those of `loader.py`: 400 x 534 px and, where GSFL_TUNE_REAL_DATA names a folder
with clothing/train.parquet, the 240 px photographs in there.

    python benchmarks/features.py            # about ten minutes on two cores
    python benchmarks/features.py --quick    # a smoke run: half a minute
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from _report import publish, spread, table
from loader import write_clothing, write_photographs
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from gsfl_tune.data import DecodedImages, prepare
from gsfl_tune.data.augment import center_crop
from gsfl_tune.data.image_file import square_side
from gsfl_tune.data.loader import eval_batches
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.models import Backbone, create_backbone
from gsfl_tune.models.frozen import frozen_forward
from gsfl_tune.training.caches.features import FeatureExtractor, FeatureRecipe

NAME, BATCH = "tf_efficientnet_lite0", 64
BASE = "decoded, eager"


def unit(maps: Tensor) -> Tensor:
    return functional.normalize(maps.mean((2, 3)), dim=1).cpu()


def user_loader(folder: Path, size: int, backbone: Backbone, workers: int) -> DataLoader:
    change = v2.Compose(
        [
            v2.Resize(square_side(size), interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(*backbone.preprocessing),
        ]
    )
    return DataLoader(
        ImageFolder(str(folder), change),
        batch_size=BATCH,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )


def user_features(loader: DataLoader, model: nn.Module, device: torch.device) -> Tensor:
    with torch.inference_mode():
        return torch.cat([unit(model.forward_features(x.to(device))) for x, _ in loader])


def decoded_features(
    images: DecodedImages, size: int, backbone: Backbone, forward: nn.Module, device: torch.device
) -> Tensor:
    mean, std = backbone.preprocessing

    def batches() -> Iterator[Tensor]:
        for batch in eval_batches(
            images,
            np.arange(len(images)),
            BATCH,
            transform=lambda squares: center_crop(squares, size, mean, std),
            device=device,
        ):
            yield batch.inputs.contiguous(memory_format=torch.channels_last)

    with torch.inference_mode():
        return torch.cat([unit(forward(batch)) for batch in batches()])


def our_features(
    images: DecodedImages, size: int, backbone: Backbone, weights: str, device: torch.device
) -> Tensor:
    recipe = FeatureRecipe(backbone.name, weights, size, "average", None, None)
    with tempfile.TemporaryDirectory(prefix="features-") as cache:
        return FeatureExtractor(recipe, backbone, device).features(images, Path(cache)).clone()


def measure(
    name: str, folder: Path, size: int, weights: str, runs: int, device: torch.device
) -> tuple[list[list[str]], str]:
    """Rows of the table for one folder and one size, and a line on what is done once."""
    config = DataConfig(source="folder", path=str(folder), image_size=size)
    start = time.perf_counter()
    images = prepare(config, cache_dir=folder.parent / f"cache-{folder.name}-{size}").pool
    decoding = time.perf_counter() - start
    backbone = create_backbone(NAME, weights).to(device)
    start = time.perf_counter()
    frozen_forward(backbone, (3, size, size))
    making = time.perf_counter() - start
    fast = frozen_forward(backbone, (3, size, size), precision="bf16")
    loader = user_loader(folder, size, backbone, len(os.sched_getaffinity(0)))
    ways: dict[str, Callable[[], Tensor]] = {
        "timm, DataLoader": lambda: user_features(loader, backbone.model, device),
        BASE: lambda: decoded_features(images, size, backbone, backbone, device),
        "ours": lambda: our_features(images, size, backbone, weights, device),
        "ours, bf16": lambda: decoded_features(images, size, backbone, fast, device),
    }
    next(iter(loader))
    rates: dict[str, list[float]] = {way: [] for way in ways}
    features: dict[str, Tensor] = {}
    for _ in range(runs):
        for way, compute in ways.items():
            start = time.perf_counter()
            features[way] = compute()
            rates[way].append(len(features[way]) / (time.perf_counter() - start))
    medians = {way: statistics.median(values) for way, values in rates.items()}
    rows = []
    for way in ways:
        apart = "-"
        if way.startswith("ours"):
            apart = f"{(features[way] - features[BASE]).abs().max().item():.0e}"
        rows.append(
            [
                f"{name}, {size} px" if not rows else "",
                way,
                spread(rates[way]),
                f"{medians[way] / medians[BASE]:.2f}",
                apart,
            ]
        )
    line = (
        f"- {name}, {size} px: files decoded in {decoding:.1f} s (not in these times), "
        f"fast copy made in {making:.1f} s (in those of ours, for {len(images)} images)"
    )
    return rows, line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=768, help="photographs a data set")
    parser.add_argument("--runs", type=int, default=3, help="repetitions, alternating")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 96], help="pixels")
    parser.add_argument("--weights", default="package", help="`none` without the package")
    parser.add_argument("--quick", action="store_true", help="few images, once, nothing saved")
    options = parser.parse_args()
    count, runs, sizes = options.images, options.runs, options.sizes
    if options.quick:
        count, runs, sizes = 96, 1, [96]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[list[str]] = []
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="features-") as temporary:
        folders = {"400 x 534 px": Path(temporary) / "photographs"}
        write_photographs(folders["400 x 534 px"], count)
        real = os.environ.get("GSFL_TUNE_REAL_DATA")
        if real:
            folders["clothing, 240 px"] = Path(temporary) / "clothing"
            parquet = Path(real) / "clothing" / "train.parquet"
            write_clothing(folders["clothing, 240 px"], parquet, count)
        for name, folder in folders.items():
            for size in sizes:
                more, line = measure(name, folder, size, options.weights, runs, device)
                rows += more
                lines.append(line)
    header = ["images", "way", "images/s: median (range)", f"against {BASE}", "largest difference"]
    text = (
        f"{NAME}, {options.weights} weights, {count} images, batches of {BATCH} on {device}, "
        f"{torch.get_num_threads()} threads, {runs} alternating runs.\n\n"
        + table(header, rows)
        + "\n\nOnce a node:\n\n"
        + "\n".join(lines)
    )
    publish("features", "Features of a frozen backbone", text, save=not options.quick)


if __name__ == "__main__":
    main()
