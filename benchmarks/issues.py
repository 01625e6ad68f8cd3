"""How many planted wrong labels and relabelled copies `gsfl-tune data --issues` finds.

    python benchmarks/issues.py [--data clothing grocery] [--seeds 3] [--cleanlab PYTHON] [--quick]

Two per cent of the labels are replaced: by any other class, or by one that is hard to tell (another
class of the same coarse group, where `groups.csv` says which those are). Besides, five images are
written again smaller, re-encoded and under another class. Precision and recall are of the first n
and 2n of the list, where n is how many labels were planted; labels that are wrong in the data set
itself count as false here. Takes about ten minutes on two cores, most of it features.

`--cleanlab` adds the lists of the package cleanlab. It is not among the dependencies: PYTHON is the
interpreter of another environment (`python -m venv /tmp/c && /tmp/c/bin/pip install cleanlab`).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _report import publish, spread, table
from glue_space import real_data
from numpy.typing import NDArray
from PIL import Image

from gsfl_tune.data import prepare
from gsfl_tune.data.sources import create_source
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.issues.labels import Predictions, doubt, fold_units, out_of_fold
from gsfl_tune.training import Workspace
from gsfl_tune.training.metrics import log_softmax
from gsfl_tune.training.temperature import fit_temperature

SHARE = 0.02
COPIES = 5
# Of the quick run: rendered typefaces.
QUICK = {"source": "typefaces", "image_size": 96, "typefaces": {"train": 15, "test": 5}}


@dataclass(frozen=True)
class Photographs:
    """A data set with its features.

    Attributes:
        name: What people call it.
        features: (N, D).
        labels: (N,) as given.
        units: (N,) what stays in one fold.
        classes: Names of the classes.
        groups: Coarse group of each class, where it is known.
    """

    name: str
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    units: NDArray[np.int64]
    classes: list[str]
    groups: list[str] | None


def configuration(name: str, root: Path | None) -> Config:
    """Of the frozen backbone that the command takes for a path."""
    data = (
        QUICK if root is None else {"source": "parquet", "path": str(root / name / "[tv]*.parquet")}
    )
    content = {"name": name, "data": data, "model": {"weights": "package"}}
    return Experiment.parse(json.dumps(content), file="benchmark").defaults()


def load(name: str, root: Path | None) -> Photographs:
    """Computes the features, or takes them from the cache."""
    config = configuration(name, root)
    dataset = prepare(config.data)
    workspace = Workspace(dataset)
    features = [workspace.features(config, part).float().numpy() for part in ("pool", "test")]
    labels = np.concatenate([dataset.pool.labels, dataset.test.labels])
    paths, grouping = dataset.belonging()
    place = {path: row for row, path in enumerate(paths)}
    rows = [place[path] for path in (*dataset.pool.paths, *dataset.test.paths)]
    grouping = type(grouping)(grouping.copies[rows], grouping.units[rows])
    file = None if root is None else root / name / "groups.csv"
    groups = dataset.known_groups
    if file is not None and file.exists():
        with file.open(newline="") as lines:
            of_class = {row["class"]: row["group"] for row in csv.DictReader(lines)}
        groups = [of_class[each] for each in dataset.classes]
    units = fold_units(grouping, labels)
    return Photographs(name, np.concatenate(features), labels, units, dataset.classes, groups)


def plant(
    photographs: Photographs, seed: int, groups: Sequence[str] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels of which some are wrong, and the positions of those.

    Args:
        photographs: The images.
        seed: Of the choice.
        groups: Group of each class within which labels are exchanged; None: among all.
    """
    generator = np.random.default_rng(seed)
    labels = photographs.labels
    count = len(photographs.classes)
    others = [
        [c for c in range(count) if c != label and (not groups or groups[c] == groups[label])]
        for label in range(count)
    ]
    possible = np.flatnonzero([bool(others[label]) for label in labels])
    rows = generator.choice(possible, round(SHARE * len(labels)), replace=False)
    noisy = labels.copy()
    noisy[rows] = [generator.choice(others[label]) for label in labels[rows]]
    return noisy, rows


def scored(found: NDArray[np.int64], planted: NDArray[np.int64]) -> list[float]:
    """Precision and recall of the first n and of the first 2n, and how many are listed by n."""
    hits = np.isin(found, planted)
    values = []
    for most in (len(planted), 2 * len(planted)):
        first = hits[:most]
        values += [float(first.mean()) if len(first) else 0.0, float(first.sum()) / len(planted)]
    return [*values, len(found) / len(planted)]


def thresholded(predictions: Predictions, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The list of the paper: off the diagonal of the confident joint, by normalised margin."""
    logits = predictions.logits / fit_temperature(predictions.logits[None], labels)
    probabilities = np.exp(log_softmax(logits))
    rows = np.arange(len(labels))
    given = probabilities[rows, labels]
    thresholds = np.full(probabilities.shape[1], np.inf)
    for label in np.unique(labels):
        thresholds[label] = given[labels == label].mean()
    believed = np.where(probabilities >= thresholds, probabilities, -1.0)
    doubted = np.flatnonzero((believed.max(1) > 0) & (believed.argmax(1) != labels))
    margins = probabilities[doubted].max(1) - given[doubted]
    return doubted[np.argsort(-margins, kind="stable")]


def asked_cleanlab(
    python: str, probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[dict[str, NDArray[np.int64]], str]:
    """The lists of the package cleanlab, by ranking, and its version.

    Args:
        python: Interpreter of the environment that has it.
        probabilities: (N, C), out of fold.
        labels: (N,) given classes.
    """
    script = Path(__file__).with_name("_cleanlab.py")
    with tempfile.TemporaryDirectory(prefix="cleanlab-") as folder:
        given, target = Path(folder, "given.npz"), Path(folder, "found.npz")
        np.savez(given, labels=labels, probabilities=probabilities)
        # With -P, modules of this folder do not hide those of the environment.
        subprocess.run([python, "-P", str(script), str(given), str(target)], check=True)
        with np.load(target, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files if name != "version"}
            return found, str(arrays["version"])


def copies_found(name: str, root: Path | None, seed: int) -> int:
    """How many of five relabelled copies are listed as one picture with different labels."""
    config = configuration(name, root).data
    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="issues-") as folder:
        target = Path(folder)
        source = create_source(config, target / "cache")
        chosen = generator.choice(len(source.samples), 60, replace=False)
        originals = {}
        for position, reader in source.readers(sorted(chosen.tolist())):
            content = reader()
            image = Image.open(io.BytesIO(content)) if isinstance(content, bytes) else content
            label = source.samples[position].label
            path = target / "images" / f"{label % 2}" / f"{position}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.convert("RGB").save(path, quality=95)
            originals[path] = image.convert("RGB")
        wanted = set()
        for path in generator.choice(sorted(map(str, originals)), COPIES, replace=False):
            image = originals[Path(path)]
            size = tuple(max(16, round(0.7 * side)) for side in image.size)
            other = target / "images" / f"{1 - int(Path(path).parent.name)}"
            copy = other / f"again-{Path(path).name}"
            image.resize(size, Image.Resampling.BICUBIC).save(copy, quality=60)
            wanted.add(frozenset([path, str(copy)]))
        data = DataConfig(source="folder", path=str(target / "images"), image_size=64)
        near = prepare(data, cache_dir=target / "cache").near_duplicates()
        return sum(any(pair <= set(paths) for paths in near.conflicting) for pair in wanted)


def measure(
    photographs: Photographs, seeds: int, cleanlab: str | None
) -> tuple[list[list[str]], list[str]]:
    """Rows of the table, and a line on the estimated share of wrong labels.

    Args:
        photographs: The images.
        seeds: How many times labels are planted.
        cleanlab: Interpreter that has cleanlab; None: without its rows.
    """
    rows, notes = [], []
    kinds: list[tuple[str, list[str] | None]] = [("any other class", None)]
    if photographs.groups is not None:
        kinds.append(("a class of the same group", photographs.groups))
    for kind, groups in kinds:
        lists: dict[str, list[list[float]]] = {}
        shares = []
        for seed in range(seeds):
            labels, planted = plant(photographs, seed, groups)
            predictions = out_of_fold(
                photographs.features, labels, photographs.units, len(photographs.classes)
            )
            found = doubt(predictions, labels)
            listed = {
                "this": found.rows,
                "confident joint, margin": thresholded(predictions, labels),
            }
            if cleanlab is not None:
                # Those that `doubt` judges by: with its temperature, cleanlab mostly finds more.
                probabilities = found.noise.probabilities(predictions.logits)
                theirs, version = asked_cleanlab(cleanlab, probabilities, labels)
                listed |= {f"cleanlab {version}, {name}": rows for name, rows in theirs.items()}
            for method, positions in listed.items():
                lists.setdefault(method, []).append(scored(positions, planted))
            shares.append(100 * found.noise.share)
        for method, values in lists.items():
            columns = list(zip(*values, strict=True))
            cells = [spread([100 * value for value in column], ".0f") for column in columns[:4]]
            rows.append(
                [photographs.name, kind, str(len(planted)), method, *cells, spread(columns[4])]
            )
        notes.append(f"{photographs.name}, {kind}: {spread(shares)} %")
    return rows, notes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["clothing", "grocery"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cleanlab", metavar="PYTHON", help="interpreter that has cleanlab")
    parser.add_argument("--quick", action="store_true", help="rendered typefaces, nothing written")
    args = parser.parse_args()
    root = None if args.quick else real_data()
    if root is None and not args.quick:
        raise SystemExit("GSFL_TUNE_REAL_DATA names no folder; --quick takes rendered typefaces")
    if args.cleanlab and shutil.which(args.cleanlab) is None:
        raise SystemExit(f"--cleanlab: no program {args.cleanlab}")
    rows, notes, copies = [], [], []
    for name in ["typefaces"] if root is None else args.data:
        seeds = 1 if args.quick else args.seeds
        found, told = measure(load(name, root), seeds, args.cleanlab)
        rows += found
        notes += told
        hits = [copies_found(name, root, seed) for seed in range(seeds)]
        copies.append(f"{name}: {', '.join(map(str, hits))} of {COPIES}")
    text = table(
        ["data", "planted", "n", "method", "precision of first n", "recall of first n",
         "precision of first 2n", "recall of first 2n", "listed / n"],
        rows,
    )  # fmt: skip
    text += (
        "\n\nPer cent, median of the seeds (smallest to largest). Labels that were wrong before "
        "count as false. Where fewer than 2n are listed, the first 2n are those.\n\n"
        f"Estimated share of wrong labels ({100 * SHARE:.0f} % planted; classes that are hard to "
        f"tell apart add to it): {'; '.join(notes)}.\n\n"
        f"Relabelled copies, smaller and re-encoded, found: {'; '.join(copies)}."
    )
    publish("issues", "Wrong labels and copies that are found", text, save=not args.quick)


if __name__ == "__main__":
    main()
