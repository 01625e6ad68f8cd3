"""Records whole learning curves of random configurations: the tables that `replay` plays back.

    GSFL_TUNE_REAL_DATA=... python -m benchmarks.replay.record WORK --shard 0/2 --configs 300
    python -m benchmarks.replay.record WORK --pack

Every configuration is drawn at random from its space (`spaces.py`), a function of its number
alone, and trained for its 27 epochs on the CPU with one thread by the project's own `Training`
on features cached once. Noted are validation accuracy and NLL after every epoch, and the
processor seconds of the process, which a busy machine changes less than the clock. Beside
them: the all-defaults configuration with several seeds, and the first configurations once more
with another seed, which say how much of a curve is chance.

It may be stopped at any time and started again: what is in ``WORK/*.jsonl`` is not repeated.
Jobs of the three data sets take turns, so that tables of an unfinished recording can be used.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from benchmarks.replay.spaces import DATASETS, EPOCHS, experiment
from gsfl_tune.data import prepare, square_side
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.search_config import SamplerConfig
from gsfl_tune.search.samplers.factory import create_sampler
from gsfl_tune.training.training import NonFiniteLoss, Training
from gsfl_tune.training.workspace import Workspace

FEATURES = 128
TABLES = Path(__file__).parent / "tables"
SPACE_SEED = 20
DEFAULTS_SEEDS = 5
AGAIN = 24

Job = tuple[str, int, int]
"""Data set, number of the configuration (-1: all defaults), seed of its training."""


class SmallWorkspace(Workspace):
    """Unit features of 128 dimensions instead of 1,280: a curve takes seconds, not minutes.

    They are projected on the main directions of the training features (about the origin, as
    they are unit vectors) and turned at random, so that dropout takes away a little of each.
    """

    def feature_dim(self, config: Config) -> int:
        return FEATURES

    def features(self, config: Config, part: str = "pool") -> torch.Tensor:
        if part not in self._small:
            full = super().features(config, part).numpy().astype(np.float64)
            train = super().features(config).numpy()[self.dataset.train_index].astype(np.float64)
            _, vectors = np.linalg.eigh(train.T @ train)
            main = vectors[:, -FEATURES:]
            turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(FEATURES, FEATURES)))
            small = torch.from_numpy((full @ main @ turn).astype(np.float32))
            self._small[part] = torch.nn.functional.normalize(small, dim=1)
        return self._small[part]

    @cached_property
    def _small(self) -> dict[str, torch.Tensor]:
        return {}


class BytesDropout(nn.Module):
    """Dropout from one random byte an element: torch's takes 18 ns an element on a CPU."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.threshold = round(256 * p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.threshold == 0:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view_as(x) >= self.threshold
        return x * kept * (256 / (256 - self.threshold))


def replace_dropout(module: nn.Module) -> None:
    """Puts `BytesDropout` in the place of every dropout layer."""
    for name, child in module.named_children():
        if isinstance(child, nn.Dropout):
            setattr(module, name, BytesDropout(child.p))
        else:
            replace_dropout(child)


def draw(found: Experiment, index: int) -> dict[str, Any]:
    """Random parameters; number -1 has the defaults."""
    if index < 0:
        return found.default_params()
    sampler = create_sampler(SamplerConfig(name="random"), found.space, SPACE_SEED, index)
    return found.space.suggest(optuna.create_study(sampler=sampler).ask())


def jobs(configs: int) -> Iterator[Job]:
    """All trainings, in the order in which they are recorded."""
    for seed in range(DEFAULTS_SEEDS):
        yield from ((name, -1, seed) for name in DATASETS)
    for index in range(configs):
        for name in DATASETS:
            yield name, index, 0
            # Spread, so that an early table has some of them.
            if index % 4 == 0 and index // 4 < AGAIN:
                yield name, index, 1


def record(job: Job, found: Experiment, workspace: Workspace, scratch: Path) -> dict[str, Any]:
    """Trains one configuration to its end."""
    name, index, seed = job
    params = draw(found, index)
    config = found.configure(params)
    result: dict[str, Any] = {"dataset": name, "index": index, "seed": seed, "params": params}
    curves: dict[str, list[float]] = {"accuracy": [], "nll": [], "seconds": []}
    failed = None
    shutil.rmtree(scratch, ignore_errors=True)
    training = Training(config, workspace, scratch, seed=seed)
    replace_dropout(training.head)
    try:
        while not training.finished:
            started = time.process_time()
            epoch = training.run_epoch()
            curves["seconds"].append(round(time.process_time() - started, 5))
            curves["accuracy"].append(round(epoch["validation/accuracy"], 6))
            curves["nll"].append(round(epoch["validation/nll"], 5))
    except NonFiniteLoss as error:
        failed = str(error)
    return result | curves | {"failed": failed}


def run(work: Path, shard: int, shards: int, configs: int) -> None:
    """Records one process's share of the jobs."""
    torch.set_num_threads(1)
    # bfloat16 products, sums in float32: three times as fast where the CPU has AMX.
    torch.set_float32_matmul_precision("medium")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    work.mkdir(parents=True, exist_ok=True)
    done = {(row["dataset"], row["index"], row["seed"]) for row in read(work)}
    out = work / f"curves-{shard}.jsonl"
    real = Path(os.environ.get("GSFL_TUNE_REAL_DATA", "data"))
    spaces = {name: experiment(name, real) for name in DATASETS}
    workspaces: dict[str, SmallWorkspace] = {}
    for number, job in enumerate(jobs(configs)):
        if number % shards != shard or job in done:
            continue
        found = spaces[job[0]]
        if job[0] not in workspaces:
            side = square_side(found.largest_image_size)
            data, cache = found.defaults().data, work / "cache"
            dataset = prepare(data, side=side, cache_dir=cache)
            workspaces[job[0]] = SmallWorkspace(dataset, cache)
        row = record(job, found, workspaces[job[0]], work / f"scratch-{shard}")
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read(work: Path) -> list[dict[str, Any]]:
    """Whatever is recorded so far; a line cut short is not."""
    rows = []
    for path in sorted(work.glob("curves-*.jsonl")):
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return rows


def pack(work: Path, tables: Path) -> None:
    """Writes one small Parquet file a data set."""
    tables.mkdir(parents=True, exist_ok=True)
    rows = read(work)
    for name in DATASETS:
        chosen = [row for row in rows if row["dataset"] == name]
        chosen.sort(key=lambda row: (row["index"], row["seed"]))
        if not chosen:
            continue
        columns: dict[str, Any] = {
            "index": pa.array([row["index"] for row in chosen], pa.int16()),
            "seed": pa.array([row["seed"] for row in chosen], pa.int8()),
            "params": pa.array([json.dumps(row["params"]) for row in chosen]),
            "failed": pa.array([row["failed"] for row in chosen], pa.string()),
        }
        for key in ("accuracy", "nll", "seconds"):
            curves = np.array([_whole(row[key]) for row in chosen], dtype=np.float32)
            columns[key] = pa.FixedSizeListArray.from_arrays(pa.array(curves.ravel()), EPOCHS)
        path = tables / f"{name}.parquet"
        pq.write_table(pa.table(columns), path, compression="zstd")
        failed = sum(row["failed"] is not None for row in chosen)
        print(f"{path}: {len(chosen)} curves, {failed} failed, {path.stat().st_size:,} bytes")


def _whole(curve: list[float]) -> list[float]:
    return curve + [math.nan] * (EPOCHS - len(curve))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("work", type=Path, help="folder of the unpacked recording and its caches")
    parser.add_argument("--shard", default="0/1", help="i/n: the i-th of n processes")
    parser.add_argument("--configs", type=int, default=300, help="random configurations a data set")
    parser.add_argument("--pack", action="store_true", help="write the tables and record nothing")
    parser.add_argument("--tables", type=Path, default=TABLES, help="where --pack writes")
    args = parser.parse_args()
    if args.pack:
        pack(args.work, args.tables)
        return
    shard, shards = map(int, args.shard.split("/"))
    run(args.work, shard, shards, args.configs)


if __name__ == "__main__":
    main()
