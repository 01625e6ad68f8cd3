"""Augmented training batches: ours against torchvision's `ImageFolder` and `DataLoader`.

Both read the same folder of JPEG files and deliver batches of 64 normalised float images of
224 px, each cropped at random (the same areas and aspects), resized with antialiasing and mirrored
half of the time. Both use every core: theirs with as many persistent worker processes, ours with as
many threads. Theirs is measured in the three ways that people use, and compared with the
fastest: Pillow all the way, torchvision's v2 transforms on byte tensors, and v2 on what
`torchvision.io` decodes. The first epoch of its workers, in which they start, is not counted.

Ours decodes every file once, into squares that later epochs and other trials read. "Warm" is an
epoch of a later trial, the start of its threads included; "first epoch" is everything from an
empty cache: looking through the folder, digests, decoding, and the epoch. What is not the same:
ours crops from the middle square of a photograph, shrunk to 258 px; theirs from the whole
photograph. That the augmentation is the same otherwise is checked with the mean and the standard
deviation of the outputs, where both get the very same squares.

Photographs are 400 x 534 px (text over noise with the spectrum of photographs; about as many bytes
as photographs have at JPEG quality 90) and, where GSFL_TUNE_REAL_DATA names a folder with
clothing/train.parquet, the 240 px photographs in there. With a GPU, batches end there.

    python benchmarks/loader.py            # about four minutes on two cores
    python benchmarks/loader.py --quick    # a smoke run: half a minute
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from _report import publish, spread, table
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from gsfl_tune.data import Augment, Dataset, epoch_batches, prepare
from gsfl_tune.data.sources.typefaces import FACES, render
from gsfl_tune.experiment.data_config import AugmentConfig, DataConfig

SIZE, BATCH = 224, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENT = AugmentConfig()


@dataclass(frozen=True)
class Peer:
    """One way to set up `ImageFolder`."""

    name: str
    read: Callable[[str], object]
    first: Sequence[object]


def read_pillow(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def read_tensor(path: str) -> Tensor:
    return decode_image(path, mode=ImageReadMode.RGB)


PEERS = (
    Peer("ImageFolder, Pillow", read_pillow, ()),
    Peer("ImageFolder, v2 on tensors", read_pillow, (v2.PILToTensor(),)),
    Peer("ImageFolder, v2, torchvision.io", read_tensor, ()),
)


def changes(peer: Peer) -> v2.Compose:
    """The peer's transform, with our areas and aspects."""
    ratio = AUGMENT.ratio
    return v2.Compose(
        [
            *peer.first,
            v2.RandomResizedCrop(SIZE, (AUGMENT.scale, 1.0), (1 / ratio, ratio), antialias=True),
            v2.RandomHorizontalFlip(),
            *(() if peer.first or peer.read is read_tensor else (v2.PILToTensor(),)),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def write_photographs(folder: Path, count: int, classes: int = len(FACES)) -> None:
    """Writes 400 x 534 px JPEG files as ``folder/CLASS/NUMBER.jpg``, many of them on all cores."""
    cores = len(os.sched_getaffinity(0))
    if count < 100 * cores:
        _write(folder, range(count), classes)
        return
    # One process imports, all others are its children.
    context = get_context("forkserver")
    context.set_forkserver_preload(["loader"])
    with ProcessPoolExecutor(cores, mp_context=context) as pool:
        parts = [range(first, count, cores) for first in range(cores)]
        list(pool.map(_write, [folder] * cores, parts, [classes] * cores))


def _write(folder: Path, numbers: range, classes: int) -> None:
    random = np.random.default_rng(numbers.start)
    grounds = [_noise(random, 700, 900) for _ in range(min(12, 1 + len(numbers) // 40))]
    for number in numbers:
        label = number % classes
        # At half the size and enlarged: a quarter of the time.
        drawn = render(label, size=267, seed=(number,)).resize((534, 534))
        text = np.asarray(drawn, dtype=np.float32)[:400]
        ground = grounds[random.integers(len(grounds))]
        top, left = random.integers(300), random.integers(366)
        pixels = 0.5 * text + 0.5 * ground[top : top + 400, left : left + 534]
        path = folder / FACES[label][0] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def _noise(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise whose amplitude falls with its frequency, as in photographs, (height, width, 3)."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    planes = []
    for _ in range(3):
        waves = np.fft.rfft2(random.standard_normal((height, width))) / frequency**1.25
        plane = np.fft.irfft2(waves, (height, width))
        planes.append(128 + 60 * plane / plane.std())
    return np.stack(planes, axis=-1)


def write_clothing(folder: Path, parquet: Path, count: int) -> None:
    """Writes the image files of a parquet file as ``folder/CLASS/NUMBER.jpg``."""
    rows = pq.read_table(parquet)
    rows = rows.take(np.linspace(0, len(rows) - 1, count).astype(int))
    for number, (image, label) in enumerate(
        zip(rows["image"].to_pylist(), rows["label"].to_pylist(), strict=True)
    ):
        path = folder / str(label) / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image["bytes"])


def their_loader(folder: Path, peer: Peer, workers: int, device: torch.device) -> DataLoader:
    return DataLoader(
        ImageFolder(str(folder), changes(peer), loader=peer.read),
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        drop_last=True,
        pin_memory=device.type == "cuda",
    )


def their_epoch(loader: DataLoader, device: torch.device) -> Iterator[Tensor]:
    for images, _ in loader:
        yield images.to(device, non_blocking=True)


def our_epoch(data: Dataset, epoch: int, threads: int, device: torch.device) -> Iterator[Tensor]:
    # All images, as ImageFolder does: validation is not left out here.
    batches = epoch_batches(
        data.pool,
        np.arange(len(data.pool)),
        BATCH,
        seed=0,
        epoch=epoch,
        transform=Augment(AUGMENT, SIZE, MEAN, STD),
        device=device,
        threads=threads,
    )
    for batch in batches:
        yield batch.inputs


def open_data(folder: Path, cache: Path) -> Dataset:
    return prepare(DataConfig(source="folder", path=str(folder), image_size=SIZE), cache_dir=cache)


def rate(batches: Iterator[Tensor], device: torch.device) -> float:
    """Images a second until the last batch is there."""
    start, count = time.perf_counter(), 0
    for images in batches:
        count += len(images)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - start)


def statistics_of(batches: Iterator[Tensor]) -> tuple[float, float]:
    """Mean and standard deviation of the pixels in 0..1, over channels."""
    values = torch.cat([images[:, :, ::7, ::7].clone() for images in batches])
    values = values * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    return values.mean().item(), values.std(dim=(0, 2, 3)).mean().item()


def compare_changes(data: Dataset) -> str:
    """Outputs of both on the same squares."""
    transform = changes(PEERS[0])
    torch.manual_seed(0)
    squares = [Image.fromarray(square) for square in data.pool.gather(np.arange(len(data.pool)))]
    cpu = torch.device("cpu")
    theirs = statistics_of(transform(image)[None] for _ in range(2) for image in squares)
    ours = statistics_of(batch for epoch in (1, 2) for batch in our_epoch(data, epoch, 1, cpu))
    apart = max(abs(a / b - 1) for a, b in zip(ours, theirs, strict=True))
    if apart > 0.02:
        raise SystemExit(f"outputs differ: mean and deviation {ours} (ours), {theirs} (theirs)")
    return f"mean {ours[0]:.3f} and {theirs[0]:.3f}, deviation {ours[1]:.3f} and {theirs[1]:.3f}"


def measure(
    name: str, folder: Path, cache: Path, workers: int, runs: int, device: torch.device
) -> tuple[list[list[str]], str]:
    """Rows of the table for one folder, and a line on the outputs."""
    files = list(folder.rglob("*.jpg"))
    kilobytes = statistics.mean(path.stat().st_size for path in files) / 1000

    cold = []
    for run in range(min(3, runs)):
        start = time.perf_counter()
        data = open_data(folder, cache / str(run))
        count = sum(len(batch) for batch in our_epoch(data, 0, workers, device))
        cold.append(count / (time.perf_counter() - start))

    loaders = [their_loader(folder, peer, workers, device) for peer in PEERS]
    for loader in loaders:
        rate(their_epoch(loader, device), device)
    theirs: list[list[float]] = [[] for _ in PEERS]
    warm: list[float] = []
    for run in range(runs):
        for rates, loader in zip(theirs, loaders, strict=True):
            rates.append(rate(their_epoch(loader, device), device))
        # Several epochs, as one is over in a moment.
        warm.append(
            rate(
                (b for e in range(3) for b in our_epoch(data, 3 * run + e, workers, device)), device
            )
        )
    best = max(statistics.median(rates) for rates in theirs)
    label = f"{name}, {kilobytes:.0f} kB"
    rows = [
        [
            label if first else "",
            way,
            spread(rates, ".0f"),
            f"{statistics.median(rates) / best:.2f}",
        ]
        for first, (way, rates) in zip(
            (True, *[False] * 9),
            (
                *zip((peer.name for peer in PEERS), theirs, strict=True),
                ("ours, warm", warm),
                ("ours, first epoch", cold),
            ),
            strict=False,
        )
    ]
    return rows, f"- {name}, ours and theirs: {compare_changes(data)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=1024, help="photographs a data set")
    parser.add_argument("--runs", type=int, default=5, help="repetitions, alternating")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="few images, once, nothing saved")
    options = parser.parse_args()
    images, runs = (192, 1) if options.quick else (options.images, options.runs)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[list[str]] = []
    outputs: list[str] = []
    with tempfile.TemporaryDirectory(prefix="loader-") as temporary:
        folders = {"400 x 534 px": Path(temporary) / "photographs"}
        write_photographs(folders["400 x 534 px"], images)
        real = os.environ.get("GSFL_TUNE_REAL_DATA")
        if real:
            folders["clothing, 240 px"] = Path(temporary) / "clothing"
            parquet = Path(real) / "clothing" / "train.parquet"
            write_clothing(folders["clothing, 240 px"], parquet, images)
        for name, folder in folders.items():
            cache = Path(temporary) / f"cache-{folder.name}"
            more, line = measure(name, folder, cache, options.workers, runs, device)
            rows += more
            outputs.append(line)
    header = ["photographs", "way", "images/s: median (range)", "against the best of theirs"]
    text = (
        f"{images} JPEG files, batches of {BATCH} at {SIZE} px on {device}, {options.workers} "
        f"worker processes (theirs) or threads (ours), {runs} alternating runs.\n\n"
        + table(header, rows)
        + "\n\nThe same squares changed by both, mean and standard deviation of the outputs:\n\n"
        + "\n".join(outputs)
    )
    publish("loader", "Augmented training batches", text, save=not options.quick)


if __name__ == "__main__":
    main()
