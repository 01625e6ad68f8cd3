"""What features are worth that were learned without labels: each strategy beside its base method.

A base method (MoCo v2, the one of both papers) alone, with pairs of decoded images
(`pretrain.discriminative`), and with common rationales (`pretrain.lcr`), with the same epochs,
images and views; three seeds. Omniglot and typefaces start from random weights (ResNet-10t, 64 px),
clothing from EfficientNet-Lite0's of ImageNet (96 px). `letters` is a small set for a first look,
20 characters of omniglot with a tiny network (timm's test_resnet, 48 px). Judged on the validation
part, as `gsfl-tune pretrain` does: the strategies' settings were not searched, and the test part is
not opened. `10 % of labels`: the linear probe learns from a tenth of the labelled training images,
at least one a class.

What was measured once stays in ``results/pretrain.jsonl``; a run adds what is missing there. One
that was killed goes on at its last epoch.

    python benchmarks/pretrain.py --data omniglot        # 4 to 6 hours on two cores
    python benchmarks/pretrain.py --page                 # the table of what is there
    python benchmarks/pretrain.py --quick                # a smoke run, of which nothing is kept
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from _photos import parquet_files
from _report import RESULTS, publish, table
from scipy.stats import t

from gsfl_tune.evidence.linear_probe import tune_probe
from gsfl_tune.experiment import Experiment
from gsfl_tune.pretraining import pretrain
from gsfl_tune.training import Workspace
from gsfl_tune.training.metrics import classification_metrics

LOG = RESULTS / "pretrain.jsonl"
RUNS = Path("runs") / "benchmark-pretrain"
SEEDS = 3
# Rows of another one are apart: 2 has batch norms in groups and a queue without own images.
VERSION = 2
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "pairs": {"discriminative": {"pair_weight": 0.5, "reconstruction_weight": 0.1}},
    "lcr": {"lcr": {"weight": 0.01}},
}
START = "initialisation"
LETTERS = 20
METRICS = {
    "linear_probe": "linear probe",
    "probe_10": "10 % of labels",
    "knn_20": "kNN 20",
    "knn_200": "kNN 200",
    "retrieval_top1": "top-1",
    "retrieval_map": "mAP",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["omniglot", "typefaces", "clothing"])
    parser.add_argument("--variant", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--method", default="moco")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--page", action="store_true", help="train nothing")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.quick:
        with tempfile.TemporaryDirectory() as directory:
            rows = [
                row
                for variant in VARIANTS
                for row in measure("smoke", "moco", variant, 1, 0, Path(directory) / variant)
            ]
        publish("pretrain", "Features learned without labels", page(rows), save=False)
        return
    for data in [] if args.page else args.data:
        for seed in range(args.seeds):
            for variant in args.variant:
                if _known(data, args.method, variant, args.epochs, seed):
                    continue
                name = f"{data}-{args.method}-{variant}-{args.epochs}-{seed}-{VERSION}"
                for row in measure(data, args.method, variant, args.epochs, seed, RUNS / name):
                    print(row, flush=True)
                    with LOG.open("a") as file:
                        file.write(json.dumps(row) + "\n")
    publish("pretrain", "Features learned without labels", page(_rows()))


def experiment(data: str, method: str, variant: str, epochs: int, seed: int) -> Experiment:
    """The pretraining as a user writes it."""
    # Letters are small changes away from each other, and without colour.
    gentle = {"flip": False, "scale": 0.5, "color": 0.2, "grey": 0.0, "blur": 0.0}
    pretraining: dict[str, Any] = {
        "method": method,
        "epochs": epochs,
        "batch_size": 128,
        "seed": seed,
        "augment": {} if data == "clothing" else gentle,
        **VARIANTS[variant],
    }
    model: dict[str, Any] = {"backbone": "resnet10t", "weights": "none"}
    if data in ("typefaces", "smoke"):
        sizes = {"train": 200, "test": 20, "size": 80}
        source: dict[str, Any] = {"source": "typefaces", "image_size": 64, "typefaces": sizes}
        if data == "smoke":
            source |= {"typefaces": {"train": 12, "test": 2, "size": 80}}
            model["backbone"] = "test_resnet"
            pretraining |= {"batch_size": 32, "hidden_dim": 16, "projection_dim": 8}
    elif data == "letters":
        source = {"source": "folder", "path": str(letters(RUNS / "letters")), "image_size": 48}
        model["backbone"] = "test_resnet"
        pretraining |= {"batch_size": 64, "hidden_dim": 128, "projection_dim": 64, "queue": 256}
        pretraining["learning_rate"] = 0.06
    else:
        paths = [str(path) for path in parquet_files(data).values() if path.exists()]
        source = {"source": "parquet", "path": paths, "image_size": 64}
        if data == "clothing":
            source["image_size"] = 96
            model = {"backbone": "tf_efficientnet_lite0", "weights": "package"}
    content = {"name": "pretrain", "data": source, "model": model, "pretrain": pretraining}
    if data == "letters":
        # As small as it is, the faster precision is chance, and all rows must have the same one.
        content["training"] = {"precision": "fp32"}
    return Experiment.parse(json.dumps(content))


def letters(target: Path) -> Path:
    """Writes the first 20 characters of omniglot as a folder, once."""
    if target.exists():
        return target
    part_of = target.with_name(f"{target.name}.part")
    for part, file in parquet_files("omniglot").items():
        if not file.exists():
            continue
        rows = pq.read_table(file, columns=["image", "label"])
        pairs = zip(rows["image"].to_pylist(), rows["label"].to_pylist(), strict=True)
        for number, (image, label) in enumerate(pairs):
            if label < LETTERS:
                path = part_of / part / f"{label:03d}" / f"{number:05d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image["bytes"])
    part_of.rename(target)
    return target


def measure(
    data: str, method: str, variant: str, epochs: int, seed: int, directory: Path
) -> list[dict[str, Any]]:
    """Trains once; the base method's row has one of its beginning in front."""
    made = experiment(data, method, variant, epochs, seed)
    started, done = time.process_time(), []
    found = pretrain(
        made,
        directory,
        resume=(directory / "pretrain.json").exists(),
        on_record=lambda record: done.append(record) or print(record, flush=True),
    )
    seconds = time.process_time() - started
    about = {"data": data, "method": method, "epochs": epochs, "seed": seed, "version": VERSION}
    rows = []
    ends = [(variant, found.records[-1], str(found.weights))]
    if variant == "base":
        ends.insert(0, (START, found.records[0], made.defaults().model.weights))
    for name, record, weights in ends:
        values = {key: record.get(f"validation/{key}") for key in METRICS if key != "probe_10"}
        values["probe_10"] = few_labels(made, weights)
        rows.append(
            {
                **about,
                "variant": name,
                **values,
                "spread": record.get("train/spread"),
                "cpu_seconds": round(seconds) if name == variant else 0,
            }
        )
    return rows


def few_labels(made: Experiment, weights: str) -> float:
    """Accuracy of a linear probe that learns from a tenth of the labels, of each class evenly."""
    config = made.defaults()
    config = config.model_copy(
        update={"model": config.model.model_copy(update={"weights": weights})}
    )
    workspace = Workspace.open(config.data)
    dataset = workspace.dataset
    features, labels = workspace.features(config).numpy(), dataset.pool.labels
    chosen = []
    for label in range(dataset.class_count):
        own = dataset.train_index[labels[dataset.train_index] == label]
        chosen.append(own[: max(1, round(len(own) / 10))])
    train, judged = np.concatenate(chosen), dataset.validation_index
    with warnings.catch_warnings():
        # scikit-learn takes one image of each class for a regression.
        warnings.simplefilter("ignore", UserWarning)
        probe = tune_probe(
            features[train],
            labels[train],
            features[judged],
            labels[judged],
            class_count=dataset.class_count,
            refit=False,
        )
    metrics = classification_metrics(probe.validation_logits, labels[judged])
    return round(float(metrics["accuracy"]), 6)


def page(rows: list[dict[str, Any]]) -> str:
    """One table a data set and method: means over seeds, and differences to the base method."""
    parts = []
    groups = dict.fromkeys(_group(row) for row in rows)
    for group in sorted(groups, key=lambda each: -each[-1]):
        data, method, epochs, version = group
        own = [row for row in rows if _group(row) == group]
        header = ["", "seeds", *METRICS.values(), "probe against the base method", "CPU s"]
        cells = []
        for variant in (START, *VARIANTS):
            mine = {row["seed"]: row for row in own if row["variant"] == variant}
            if not mine:
                continue
            base = {row["seed"]: row for row in own if row["variant"] == "base"}
            seconds = [row["cpu_seconds"] for row in mine.values()]
            cells.append(
                [
                    variant if variant != "base" else method,
                    len(mine),
                    *(_mean([row[name] for row in mine.values()]) for name in METRICS),
                    "" if variant in (START, "base") else _difference(mine, base),
                    round(sum(seconds) / len(seconds)) or "",
                ]
            )
        title = f"## {data}, {method}, {epochs} epochs"
        if method == "moco" and version < 2:
            title += ", before norms in groups and a queue without own images"
        parts.append(f"{title}\n\n{table(header, cells)}\n\n{_labels(own)}")
    note = (
        "Shares of the validation part in percent, means over seeds (lowest to highest). The "
        "difference is paired by seed, with a 95 % t interval over seeds. `pairs`: "
        f"{json.dumps(VARIANTS['pairs']['discriminative'])}; `lcr`: "
        f"{json.dumps(VARIANTS['lcr']['lcr'])}. These settings are ours and were not searched. "
        "`10 % of labels` of the initialisation is that of seed 0 each time."
    )
    return "\n\n".join([note, *parts])


def _group(row: dict[str, Any]) -> tuple[str, str, int, int]:
    return row["data"], row["method"], row["epochs"], row.get("version", 1)


def _labels(rows: list[dict[str, Any]]) -> str:
    """Compares few labels with pretraining and all labels without."""

    def mean(variant: str, name: str) -> float:
        return float(np.mean([100 * row[name] for row in rows if row["variant"] == variant]))

    learned = {row["variant"] for row in rows} - {START}
    if not learned or START not in {row["variant"] for row in rows}:
        return ""
    best = max(learned, key=lambda variant: mean(variant, "probe_10"))
    few, whole = mean(best, "probe_10"), mean(START, "linear_probe")
    verdict = "beats" if few > whole else "does not beat"
    return (
        f"A tenth of the labels with pretraining (at best {few:.1f}, {best}) {verdict} all labels "
        f"of the initialisation ({whole:.1f})."
    )


def _mean(values: list[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if not known:
        return ""
    text = f"{sum(known) / len(known):.1f}"
    return text if len(known) == 1 else f"{text} ({min(known):.1f} to {max(known):.1f})"


def _difference(mine: dict[int, dict[str, Any]], base: dict[int, dict[str, Any]]) -> str:
    seeds = sorted(mine.keys() & base.keys())
    apart = np.array([100 * (mine[s]["linear_probe"] - base[s]["linear_probe"]) for s in seeds])
    if not len(apart):
        return ""
    if len(apart) == 1:
        return f"{apart[0]:+.1f} points (one seed)"
    half = float(t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart)))
    return f"{apart.mean():+.1f} points ({apart.mean() - half:+.1f} to {apart.mean() + half:+.1f})"


def _rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []


def _known(data: str, method: str, variant: str, epochs: int, seed: int) -> bool:
    wanted = (data, method, epochs, VERSION, variant, seed)
    return any((*_group(row), row["variant"], row["seed"]) == wanted for row in _rows())


if __name__ == "__main__":
    main()
