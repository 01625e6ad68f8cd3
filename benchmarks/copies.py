"""Copies of photographs: which are found, and how many others are taken for copies.

Of photographs of the test part (clothing and grocery), 1 in 20 gets a copy: half as large, JPEG of
quality 30, of another tone, mirrored, or cut at its edges. Found by looks (no network; splits use
them) and by features of EfficientNet-Lite0 (`data --issues`, ``alike``). Beside stands a common
rule, which earlier versions used: difference hashes and the correlation of thumbnails. Photographs
without a copy that are listed are counted too; in grocery many of these are of one moment.

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
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from gsfl_tune.data import prepare
from gsfl_tune.data.grouping import copies_of
from gsfl_tune.data.image_file import load_square
from gsfl_tune.data.looks import Looks, look, looks_of
from gsfl_tune.data.near import near_duplicates
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


def cut_anywhere(image: Image.Image) -> bytes:
    """Cuts up to 8 % at each edge, another share at each."""
    w, h = image.size
    left, upper, right, lower = np.random.default_rng(w * h).uniform(0, 0.08, 4)
    edges = (w * left, h * upper, w * (1 - right), h * (1 - lower))
    return jpeg(image.crop(tuple(round(edge) for edge in edges)))


def mirror(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def toned(tone: Callable[[float], float]) -> Callable[[Image.Image], bytes]:
    levels = [min(255, max(0, round(255 * tone(value / 255)))) for value in range(256)]
    return lambda image: jpeg(image.point(levels * 3))


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "half the size": lambda x: jpeg(x.resize((max(1, x.width // 2), max(1, x.height // 2)))),
    "JPEG, quality 30": lambda x: jpeg(x, 30),
    "a quarter brighter": toned(lambda v: 1.25 * v),
    "half brighter": toned(lambda v: 1.5 * v),
    "half as bright": toned(lambda v: 0.5 * v),
    "gamma 0.6": toned(lambda v: v**0.6),
    "gamma 1.6": toned(lambda v: v**1.6),
    "1.4 times the contrast": toned(lambda v: 0.5 + 1.4 * (v - 0.5)),
    "mirrored": lambda x: jpeg(mirror(x)),
    "mirrored, a quarter brighter": lambda x: toned(lambda v: 1.25 * v)(mirror(x)),
    "cut by 3 % at every edge": cut(0.03),
    "cut by 8 % at every edge": cut(0.08),
    "cut by up to 8 %, unevenly": cut_anywhere,
    "mirrored, cut by 3 %": lambda x: cut(0.03)(mirror(x)),
}


def main() -> None:
    parts = []
    for data in ("clothing", "grocery"):
        [test] = [path for path in parquet_files(data).values() if "test" in path.name]
        contents = [row["bytes"] for row in pq.read_table(test).column("image").to_pylist()]
        header = ["copies", "found by looks", "by hashes", "by looks or features"]
        header += [f"others: {way}" for way in ("looks", "hashes", "features")]
        rows = table(header, measure(contents))
        parts.append(f"## {data}, {len(contents)} photographs\n\n{rows}")
    note = (
        "One photograph in 20 has a copy; others: photographs without one that are listed. Hashes: "
        "at most 6 of 64 bits of the difference hash differ, thumbnails correlate by 0.985 and "
        "differ by at most 30 levels in the mean (the rule of earlier versions, here over all "
        "pairs)."
    )
    rows = [[name, *listed(files)] for name, files in whole_sets().items()]
    header = ["all images of", "images", "listed by looks", "listed by hashes"]
    parts.append(f"## Nothing planted\n\n{table(header, rows)}")
    publish("copies", "Copies of photographs", "\n\n".join([note, *parts]))


def whole_sets() -> dict[str, list[Path]]:
    """All files of some data sets; pictures of packages differ in little but the flavour."""
    names = ("clothing", "grocery", "omniglot")
    sets = {name: [f for f in parquet_files(name).values() if f.exists()] for name in names}
    return {**sets, "grocery's packages": [sets["grocery"][0].with_name("iconic.parquet")]}


def listed(files: list[Path]) -> list[str]:
    """Number of images, and how many have a copy by looks and by hashes."""
    squares = [
        load_square(row["bytes"], 32, "squash")[0]
        for file in files
        for row in pq.read_table(file).column("image").to_pylist()
    ]
    described = map(np.stack, zip(*map(look, squares), strict=True))
    unknown = np.full(len(squares), np.nan)
    known, cameras = np.ones(len(squares), bool), np.zeros(len(squares), np.uint32)
    looks = Looks(*described, known, unknown, cameras)
    ways = near_duplicates(looks), by_hashes([Image.fromarray(s).convert("L") for s in squares])
    counts = [int((np.bincount(numbers)[numbers] > 1).sum()) for numbers in ways]
    return [str(len(squares)), *map(str, counts)]


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def measure(contents: list[bytes]) -> list[list[str]]:
    """Returns a row of the table for every change, and one without copies."""
    originals = np.arange(len(contents))
    copied = originals[::SHARE]
    everything = list(contents)
    planted = {}
    for name, change in CHANGES.items():
        planted[name] = len(everything) + np.arange(len(copied))
        everything += [change(opened(contents[place])) for place in copied]
    looks, digests, features = described(everything)
    greys = [Image.fromarray(load_square(c, 32, "squash")[0]).convert("L") for c in everything]
    rows = []
    for name, copies in {"nothing": np.empty(0, np.int64), **planted}.items():
        used = np.concatenate([originals, copies])
        ways = [
            copies_of(looks.of(used), [digests[row] for row in used]),
            by_hashes([greys[row] for row in used]),
        ]
        pairs = [(place * SHARE, len(originals) + place) for place in range(len(copies))]
        rows.append([name, *outcome(ways, features[used], pairs)])
    return rows


def outcome(
    ways: list[np.ndarray], features: np.ndarray, pairs: list[tuple[int, int]]
) -> list[str]:
    """Shares of the planted pairs that are found, and photographs that are listed beside."""
    copies = ways[0]
    limit = alike_limit(features, copies)
    found = [sum(numbers[one] == numbers[other] for one, other in pairs) for numbers in ways]
    either = sum(
        copies[one] == copies[other] or features[one] @ features[other] >= limit
        for one, other in pairs
    )
    own = {row for pair in pairs for row in pair}
    rest = np.array([row for row in range(len(features)) if row not in own])
    cosines = features @ features.T
    cosines[copies[:, None] == copies[None]] = -1
    others = [int((np.bincount(numbers)[numbers[rest]] > 1).sum()) for numbers in ways]
    others.append(int((cosines[np.ix_(rest, rest)].max(1) >= limit).sum()))
    shares = [f"{n / len(pairs):.0%}" if pairs else "–" for n in (*found, either)]
    return [*shares, *map(str, others)]


def by_hashes(greys: list[Image.Image]) -> np.ndarray:
    """Numbers of copies by difference hashes and the correlation of 16 x 16 thumbnails."""
    small = [np.asarray(grey.resize((9, 8), Image.Resampling.BOX)).astype(int) for grey in greys]
    signs = np.stack([(each[:, 1:] > each[:, :-1]).ravel() for each in small]).astype(np.float32)
    bits = signs @ (1 - signs).T
    thumbs = [np.asarray(grey.resize((16, 16), Image.Resampling.BOX)) for grey in greys]
    values = np.stack(thumbs).reshape(len(greys), -1).astype(np.float32)
    first, second = np.nonzero(np.triu(bits + bits.T <= 6, 1))
    levels = np.abs(values[first] - values[second]).mean(1)
    centred = values - values.mean(1, keepdims=True)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-9)
    same = (levels <= 30) & ((centred[first] * centred[second]).sum(1) >= 0.985)
    same &= values[first].std(1) >= 6
    graph = coo_matrix((np.ones(same.sum()), (first[same], second[same])), (len(greys),) * 2)
    return connected_components(graph, directed=False)[1]


def described(contents: list[bytes]) -> tuple[Looks, list[bytes], np.ndarray]:
    """Looks, digests and unit features of images, in their order."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for place, content in enumerate(contents):
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
        cache = folder / "cache"
        dataset = prepare(config.data, cache_dir=cache)
        source, digests = dataset._source, dataset._digests
        order = np.argsort([sample.path.split("/")[-1] for sample in source.samples])
        looks = looks_of(source, digests, dataset.reading, cache, "copies", None).of(order)
        workspace = Workspace(dataset, cache)
        features = np.concatenate(
            [workspace.features(config, part).float().numpy() for part in ("pool", "test")]
        )
        paths = [*dataset.pool.paths, *dataset.test.paths]
        features = features[np.argsort([path.split("/")[-1] for path in paths])]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return looks, [digests[row] for row in order], features


if __name__ == "__main__":
    main()
