"""Listing and hashing many small files, and the memory that a large Parquet set takes.

Files: COUNT small JPEG files in 100 class folders, beside torchvision's `ImageFolder`, which lists
and neither hashes nor asks for sizes. Each side is a process of its own; "cold" means without our
cache (the files themselves lie in the system's cache on both sides, as nobody can empty it here).

Parquet: sets of GIGABYTES, listed, hashed, decoded and divided with the default settings
(`image_size: 224`, `data.split.by: auto`, which compares all photographs); memory is the largest
resident set of the process without pages of files (RssAnon), watched from outside. Several sizes
show how it grows.

    python benchmarks/listing.py --files 100000 --gigabytes 1 5    # half an hour, 15 GB in --folder
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _report import publish, table
from PIL import Image

CLASSES = 100
_LIST = """
import sys, time
from pathlib import Path
root, cache, what = sys.argv[1:]
if what == "ImageFolder":
    from torchvision.datasets import ImageFolder
    started = time.perf_counter()
    count = len(ImageFolder(root))
else:
    from gsfl_tune.data.digests import read_contents
    from gsfl_tune.data.sources import create_source
    from gsfl_tune.experiment.data_config import DataConfig
    started = time.perf_counter()
    source = create_source(DataConfig(source="folder", path=root), Path(cache))
    count = len(source.samples)
    if what == "hash":
        count = len(read_contents(source, Path(cache)).digests)
print(count, time.perf_counter() - started)
"""
_COLD = (
    "Cold: this program has cached nothing of these files. The file cache of the operating system "
    "is warm in every row, because the files have just been written; from a disk that has to be "
    "read, every row takes longer. The cold row is one run, the others are the best of three."
)
_MEMORY = (
    "Parquet, listed, hashed, decoded to squares of 258 px, and divided, with the default settings "
    "(`data.split.by: auto`). Memory: the largest of the process, without pages of files.\n\n"
)
_READ = """
import sys
from pathlib import Path
from gsfl_tune.data import prepare
from gsfl_tune.experiment.data_config import DataConfig
config = DataConfig(source="parquet", path=sys.argv[1])
dataset = prepare(config, cache_dir=Path(sys.argv[2]))
print(len(dataset.pool) + len(dataset.test), 0)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[1.0, 5.0])
    parser.add_argument("--folder", type=Path, help="where the files go (default: a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        root = Path(folder)
        text = listing(root, args.files)
        shutil.rmtree(root / "files")
        text += (
            "\n\n"
            + _MEMORY
            + table(["set", "memory", "time"], [parquet(root, size) for size in args.gigabytes])
        )
    publish("listing", "Listing, hashing, and memory", text)


def listing(root: Path, count: int) -> str:
    """Times of listing and hashing."""
    write_files(root / "files", count)
    runs = [
        ("torchvision `ImageFolder`: lists", "ImageFolder"),
        ("ours: lists, with size and time of every file", "list"),
        ("ours, cold: lists and hashes", "hash"),
        ("ours, warm: lists, knows the hashes", "hash"),
    ]
    rows, seconds = [], {}
    for name, what in runs:
        seconds[name] = min(timed(root, what) for _ in range(1 if "cold" in name else 3))
        ratio = seconds[name] / seconds[runs[0][0]]
        rows.append([name, f"{seconds[name]:.2f} s", f"{ratio:.2f}"])
    found = table(["what", "time", "of `ImageFolder`'s"], rows)
    return f"{count:,} files:\n\n{found}\n\n{_COLD}"


def timed(root: Path, what: str) -> float:
    """Seconds of one listing, in a process of its own."""
    command = [sys.executable, "-c", _LIST, str(root / "files"), str(root / "cache"), what]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(answer.stdout.split()[1])


def write_files(root: Path, count: int) -> None:
    """Small JPEG files, no two alike."""
    stream = io.BytesIO()
    Image.effect_noise((32, 32), 60).save(stream, "JPEG")
    content = stream.getvalue()
    for number in range(count):
        folder = root / f"class {number % CLASSES:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06d}.jpg").write_bytes(content + str(number).encode())


def parquet(root: Path, gigabytes: float) -> list[str]:
    """A row of the table: largest memory while a Parquet set is read; removes the set."""
    total = write_parquet(root / "set", gigabytes)
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", _READ, str(root / "set"), str(root / "cache")],
        stdout=subprocess.PIPE,
        text=True,
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous(process.pid))
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit("reading failed")
    size = sum(file.stat().st_size for file in (root / "set").iterdir()) / 1e9
    for folder in ("set", "cache"):
        shutil.rmtree(root / folder)
    return [f"{size:.1f} GB, {total:,} images", f"{peak / 1e6:,.0f} MB", f"{seconds:.0f} s"]


def anonymous(pid: int) -> int:
    """Bytes of memory that are no pages of files; 0 when the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
    return 1024 * int(found[0]) if found else 0


def write_parquet(folder: Path, gigabytes: float) -> int:
    """Files of half a gigabyte, of noise that compresses badly; returns the number of images."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    written, number = 0, 0
    for shard in range(max(1, round(gigabytes / 0.5))):
        rows = []
        while written < (shard + 1) * min(gigabytes, 0.5) * 1e9:
            pixels = generator.integers(0, 256, (300, 400, 3), dtype=np.uint8)
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "JPEG", quality=90)
            image = {"bytes": stream.getvalue(), "path": f"{number}.jpg"}
            rows.append({"image": image, "label": number % CLASSES})
            written += len(image["bytes"])
            number += 1
        pq.write_table(pa.Table.from_pylist(rows), folder / f"train-{shard:05d}.parquet")
    return number


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
