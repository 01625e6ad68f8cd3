"""Copies of photographs: which are found, and how many others are taken for copies.

Of photographs of the test part (clothing and grocery), 1 in 20 gets a copy: half as large, JPEG of
quality 30, brighter, mirrored, or cut at every edge. Found by looks (no network; what splits go by)
and by features of EfficientNet-Lite0 (`data --issues`, ``alike``). What is taken for copies without
any planted is counted beside; in grocery many of these are photographs of one moment.

    python benchmarks/copies.py        # three minutes
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from _photos import parquet_files
from _report import publish, table
from PIL import Image

from gsfl_tune.data import prepare
from gsfl_tune.data.grouping import copies_of
from gsfl_tune.data.looks import looks_of
from gsfl_tune.experiment.config import Config
from gsfl_tune.issues.alike import alike_limit
from gsfl_tune.training import Workspace

SHARE = 20


def jpeg(image: Image.Image, quality: int = 95) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def cut(share: float) -> Callable[[Image.Image], bytes]:
    def change(image: Image.Image) -> bytes:
        w, h = image.size
        edges = (w * share, h * share, w * (1 - share), h * (1 - share))
        return jpeg(image.crop(tuple(round(edge) for edge in edges)))

    return change


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "half the size": lambda x: jpeg(x.resize((max(1, x.width // 2), max(1, x.height // 2)))),
    "JPEG, quality 30": lambda x: jpeg(x, 30),
    "a quarter brighter": lambda x: jpeg(x.point(lambda value: min(255, round(1.25 * value)))),
    "mirrored": lambda x: jpeg(x.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "cut by 3 % at every edge": cut(0.03),
    "cut by 8 % at every edge": cut(0.08),
}


def main() -> None:
    parts = []
    for data in ("clothing", "grocery"):
        [test] = [path for path in parquet_files(data).values() if "test" in path.name]
        contents = [row["bytes"] for row in pq.read_table(test).column("image").to_pylist()]
        rows = []
        for name, change in {"nothing": None, **CHANGES}.items():
            planted = [] if change is None else [change(opened(c)) for c in contents[::SHARE]]
            found = measure(contents, planted)
            rows.append([name, *found])
        header = ["copies", "found by looks", "by either", "others: looks", "others: features"]
        parts.append(f"## {data}, {len(contents)} photographs\n\n{table(header, rows)}")
    note = "One photograph in 20 has a copy; others: photographs without one that are listed."
    publish("copies", "Copies of photographs", "\n\n".join([note, *parts]))


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def measure(contents: list[bytes], planted: list[bytes]) -> list[str]:
    """Shares of the planted copies that are found, and photographs that are listed beside."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for place, content in enumerate([*contents, *planted]):
            image = folder / "images" / f"{place % 2}" / f"{place:05d}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            image.write_bytes(content)
        config = Config.model_validate(
            {
                "name": "copies",
                "data": {
                    "source": "folder",
                    "path": str(folder / "images"),
                    "split": {"by": "image"},
                },
                "model": {"backbone": "tf_efficientnet_lite0", "weights": "package"},
            }
        )
        dataset = prepare(config.data, cache_dir=folder / "cache")
        source, digests = dataset._source, dataset._digests
        looks = looks_of(source, digests, dataset.reading, folder / "cache", "copies")
        numbers = copies_of(looks, digests)
        workspace = Workspace(dataset, folder / "cache")
        listed = [*dataset.pool.paths, *dataset.test.paths]
        features = np.concatenate(
            [workspace.features(config, part).float().numpy() for part in ("pool", "test")]
        )
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        place_of = {int(Path(path).stem): row for row, path in enumerate(listed)}
        of_source = {int(Path(s.path).stem): row for row, s in enumerate(source.samples)}
        copies = np.array([numbers[of_source[int(Path(path).stem)]] for path in listed])
        limit = alike_limit(features, copies)
    by_looks, by_either = 0, 0
    first = len(contents)
    pairs = [(place_of[place * SHARE], place_of[first + place]) for place in range(len(planted))]
    for one, other in pairs:
        looks_same = copies[one] == copies[other]
        by_looks += looks_same
        by_either += looks_same or features[one] @ features[other] >= limit
    own = {row for pair in pairs for row in pair}
    cosines = features @ features.T
    cosines[copies[:, None] == copies[None]] = -1
    rest = [row for row in range(len(listed)) if row not in own]
    shared = np.bincount(np.unique(copies, return_inverse=True)[1])
    counts = shared[np.unique(copies, return_inverse=True)[1]]
    others_looks = int((counts[rest] > 1).sum())
    others_features = int((cosines[np.ix_(rest, rest)].max(1) >= limit).sum())
    count = len(planted)
    shares = [f"{n / count:.0%}" if count else "–" for n in (by_looks, by_either)]
    return [*shares, str(others_looks), str(others_features)]


if __name__ == "__main__":
    main()
