"""What a single training gives with one recipe or another: where the templates' defaults come from.

A head stage of 10 epochs, then 8 epochs on the last blocks of EfficientNet-Lite0 (package weights),
batches of 64, on real photographs (clothing and grocery, 224 px) and rendered typefaces (96 px).
Every recipe changes one or two things. It trains on the training part alone, on one thread, and is
tested on the official test part; seconds are CPU time of the training, features and activations
that all trials share left out where they lay in the cache already.

One seed says little: two recipes whose accuracies differ by less than the interval (of the images
alone) are not told apart. What was measured once stays in ``results/recipes.jsonl`` with the
versions' state of that day; a run adds lines to it.

    python benchmarks/recipes.py --data grocery --recipe views-4      # five to fifteen minutes
    python benchmarks/recipes.py --page                               # the table of what is there
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _photos import parquet_files
from _report import RESULTS, publish, table

from gsfl_tune.evidence.interval import difference
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.training import Training, Workspace

LOG = RESULTS / "recipes.jsonl"
_LR, _BLOCKS = "training.finetune.learning_rate", "training.finetune.blocks"
_EPOCHS, _BATCH = "training.finetune.epochs", "training.finetune.batch_size"
BASE = "views-4, lr 1e-3"
# What one search on grocery found: the defaults of the templates, rounded.
BEST_TRIAL: dict[str, Any] = {
    "model.dropout": 0.375,
    "model.latent_dim": 809,
    "model.feature_scale": 4.74,
    "model.groups.method": "spectral",
    "model.groups.count": 7,
    "loss.reconstruction": 0.95,
    "loss.class_center": 0.028,
    "loss.shared_center": 0.069,
    "loss.center_rate": 0.16,
    "loss.label_smoothing": 0.084,
    "training.head.learning_rate": 9.5e-4,
    _LR: 1.24e-3,
    "training.finetune.head_learning_rate": 1.1e-3,
}
# The template's defaults, where a budget of some minutes leaves time for one block and few epochs.
SHORT: dict[str, Any] = {
    **BEST_TRIAL,
    "data.views": 4,
    "data.eval_image_size": 256,
    "data.augment.scale": 0.35,
    _BLOCKS: 1,
    _EPOCHS: 4,
}
# One technique alone, on it.
TECHNIQUES: dict[str, dict[str, Any]] = {
    "plain head": {"model.head": "plain"},
    "linear head": {"model.head": "linear"},
    "mixup 0.2": {"training.finetune.mixup": 0.2},
    "cutmix 1": {"training.finetune.cutmix": 1.0},
    "trivial": {"data.augment.policy": "trivial"},
    "erasing 0.25": {"data.augment.erasing": 0.25},
    "ISDA": {"loss.isda.weight": 1.0},
    "centre loss 0.01": {"loss.center.weight": 0.01},
    "class weights 0.5": {"loss.class_weights": 0.5},
    "balanced sampling 0.5": {"training.balanced_sampling": 0.5},
    "R-Drop": {"training.method": "rdrop"},
    "class centre 0.03": {"loss.class_center": 0.03},
    "288 px": {"data.image_size": 288},
    "best trial": BEST_TRIAL,
    "best trial, balanced 0.5": {**BEST_TRIAL, "training.balanced_sampling": 0.5},
}
RECIPES: dict[str, dict[str, Any]] = {
    "hand": {},
    "head": {_EPOCHS: 0, "training.head.epochs": 30},
    "views-4": {"data.views": 4},
    "views-8": {"data.views": 8},
    "views-8, plain head": {"data.views": 8, "model.head": "plain"},
    "views-8, EMA": {"data.views": 8, "training.ema": 0.98},
    "views-8, 16 epochs": {"data.views": 8, _EPOCHS: 16},
    "views-4, lr 1e-3": {"data.views": 4, _LR: 1e-3},
    "views-8, lr 1e-3": {"data.views": 8, _LR: 1e-3},
    "views-8, lr 2e-3": {"data.views": 8, _LR: 2e-3},
    "views-8, lr 1e-3, EMA": {"data.views": 8, _LR: 1e-3, "training.ema": 0.98},
    "views-8, lr 1e-3, 16 epochs": {"data.views": 8, _LR: 1e-3, _EPOCHS: 16},
    "views-8, 1 block, lr 1e-3": {"data.views": 8, _BLOCKS: 1, _LR: 1e-3},
    "views-8, 1 block, lr 3e-3": {"data.views": 8, _BLOCKS: 1, _LR: 3e-3},
    "views-4, 1 block, lr 3e-3, 4 epochs": {"data.views": 4, _BLOCKS: 1, _LR: 3e-3, _EPOCHS: 4},
    "views-4, 1 block, lr 3e-3": {"data.views": 4, _BLOCKS: 1, _LR: 3e-3},
    "views-4, lr 1e-3, 3 epochs": {"data.views": 4, _LR: 1e-3, _EPOCHS: 3},
    "views-4, lr 3e-3": {"data.views": 4, _LR: 3e-3},
    "views-4, lr 3e-3, batch 32": {"data.views": 4, _LR: 3e-3, _BATCH: 32},
    "views-4, 3 blocks, lr 3e-3": {"data.views": 4, _BLOCKS: 3, _LR: 3e-3},
    "views-4, 3 blocks, lr 1e-3": {"data.views": 4, _BLOCKS: 3, _LR: 1e-3},
    **{
        f"{BASE}, {name}": {"data.views": 4, _LR: 1e-3, **changes}
        for name, changes in TECHNIQUES.items()
    },
    "short": SHORT,
    "short, lr 2e-3": {**SHORT, _LR: 2e-3},
    "short, lr 3e-3": {**SHORT, _LR: 3e-3},
    "short, lr 3e-3, 6 epochs": {**SHORT, _LR: 3e-3, _EPOCHS: 6},
    "short, lr 3e-3, balanced 0.5": {
        **SHORT,
        _LR: 3e-3,
        "training.balanced_sampling": 0.5,
    },
    "all blocks, lr 1e-3": {"data.views": 0, _BLOCKS: "all", _LR: 1e-3},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["typefaces", "clothing", "grocery"])
    parser.add_argument("--recipe", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page", action="store_true", help="train nothing")
    args = parser.parse_args()
    if not args.page:
        torch.set_num_threads(1)
        for data in args.data:
            for recipe in args.recipe:
                row = measure(data, recipe, args.seed)
                print(row, flush=True)
                with LOG.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    rows = [json.loads(line) for line in LOG.read_text().splitlines()]
    publish("recipes", "One training, one recipe", page(rows))


def experiment(data: str, recipe: str, further: dict[str, Any] | None = None) -> Experiment:
    """The recipe on a data set, with further changes."""
    if data == "typefaces":
        source: dict[str, Any] = {"source": "typefaces", "image_size": 96}
        source["augment"] = {"flip": False}
    else:
        paths = [str(path) for path in parquet_files(data).values()]
        source = {"source": "parquet", "path": paths, "image_size": 224}
    finetune = {"epochs": 8, "batch_size": 64, "learning_rate": 3e-4, "head_learning_rate": 1e-3}
    content = {
        "name": "recipes",
        "data": source,
        "model": {
            "backbone": "tf_efficientnet_lite0",
            "weights": "package",
            "latent_dim": 512,
            "groups": {"count": 8},
        },
        "loss": {"label_smoothing": 0.1},
        "training": {"head": {"epochs": 10}, "finetune": {**finetune, "blocks": 2}},
    }
    changes = [f"{path}={value}" for path, value in {**RECIPES[recipe], **(further or {})}.items()]
    return Experiment.parse(json.dumps(content), overrides=changes)


def measure(data: str, recipe: str, seed: int) -> dict[str, Any]:
    """Trains and tests once."""
    config = experiment(data, recipe).defaults()
    workspace = Workspace.open(config.data)
    found = trained_and_tested(config, workspace, seed)
    return {"data": data, "recipe": recipe, **found, "cpu_seconds": round(found["cpu_seconds"])}


def trained_and_tested(config: Config, workspace: Workspace, seed: int) -> dict[str, Any]:
    """Trains a configuration to its end; what `methods.py` measures too."""
    with tempfile.TemporaryDirectory() as directory:
        training = Training(config, workspace, Path(directory), seed=seed)
        started = time.process_time()
        while not training.finished:
            training.run_epoch()
        seconds = time.process_time() - started
        validation = training.predict("validation").metrics()
        tested = training.predict("test")
    test = tested.metrics()
    return {
        "seed": seed,
        "validation": validation["accuracy"],
        "test": test["accuracy"],
        "nll": test["nll"],
        "ece": test["ece"],
        "cpu_seconds": round(seconds, 1),
        "test_images": len(workspace.dataset.test),
        # Which test images it is right about, eight a byte: to compare image by image.
        "right": np.packbits(tested.correct).tobytes().hex(),
    }


def page(rows: list[dict[str, Any]]) -> str:
    """One table a data set, in the order in which they were measured."""
    parts = []
    for data in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == data]
        header = ["recipe", "seed", "validation", "test", "NLL", "ECE", "CPU s"]
        cells = [
            [
                row["recipe"],
                row["seed"],
                f"{row['validation']:.1%}",
                f"{row['test']:.1%} ± {half_width(row):.1%}",
                f"{row['nll']:.3f}",
                f"{row['ece']:.3f}",
                row["cpu_seconds"],
            ]
            for row in own
        ]
        parts.append(f"## {data}\n\n{table(header, cells)}")
        alone = techniques(own)
        if alone:
            header = ["technique", "seeds", "test", f"difference to {BASE}", "of its CPU s"]
            parts.append(f"One technique alone, {data}:\n\n{table(header, alone)}")
    note = (
        "hand: fresh augmentation in every epoch, the last 2 blocks at 3e-4. views-N: N fixed "
        "views, activations in front of the trained blocks from the cache. ± is half of a 95 % "
        "interval over the test images; seeds come on top. The first recipe on a set builds the "
        "caches that others use, and its CPU time has them."
    )
    return "\n\n".join([note, *parts])


def techniques(rows: list[dict[str, Any]]) -> list[list[Any]]:
    """What one technique alone changes, over the seeds that both have, paired by image."""

    def of(recipe: str) -> dict[int, dict[str, Any]]:
        found = [row for row in rows if row["recipe"] == recipe and "right" in row]
        return {row["seed"]: row for row in found}

    def right(row: dict[str, Any]) -> np.ndarray:
        bits = np.frombuffer(bytes.fromhex(row["right"]), dtype=np.uint8)
        return np.unpackbits(bits)[: row["test_images"]]

    cells, base = [], of(BASE)
    for name in TECHNIQUES:
        own = of(f"{BASE}, {name}")
        seeds = sorted(own.keys() & base.keys())
        if not seeds:
            continue
        tables = [np.stack([right(each[seed]) for seed in seeds]) for each in (own, base)]
        found = difference(*tables)
        seconds = [sum(each[seed]["cpu_seconds"] for seed in seeds) for each in (own, base)]
        points = [100 * value for value in (found.mean, found.interval.low, found.interval.high)]
        cells.append(
            [
                name,
                len(seeds),
                f"{tables[0].mean():.1%}",
                "{:+.1f} points ({:+.1f} to {:+.1f})".format(*points),
                f"{seconds[0] / seconds[1]:.2f}",
            ]
        )
    return cells


def half_width(row: dict[str, Any]) -> float:
    """Half of a normal 95 % interval of an accuracy."""
    return float(1.96 * (row["test"] * (1 - row["test"]) / row["test_images"]) ** 0.5)


if __name__ == "__main__":
    main()
