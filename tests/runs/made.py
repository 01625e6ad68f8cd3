"""Finished runs with predictions of their winners' seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gsfl_tune.run import RunDirectory, read_json, write_json
from gsfl_tune.training.predictions import Predictions, save_predictions
from tests.report.runs import RunMaker

CLASSES = 4


def answers(seed: int, images: int = 60, right: float = 0.6) -> list[Predictions]:
    """Three seeds' answers to the same images; each is right with some probability."""
    labels = np.arange(images) % CLASSES
    random = np.random.default_rng(seed)
    found = []
    for _ in range(3):
        logits = random.normal(size=(images, CLASSES)).astype(np.float32)
        hit = random.random(images) < right
        logits[hit, labels[hit]] += 9
        paths = [f"test/{k:03}.png" for k in range(images)]
        found.append(Predictions(logits, labels.astype(np.int64), paths))
    return found


def finished_run(
    path: Path, predictions: list[Predictions] | None, *, data: str = "aa", test: str | None = "tt"
) -> RunDirectory:
    """A finished run; digests of its data, and of the test images where its bundle knows it."""
    names = tuple(f"gull {number}" for number in range(CLASSES))
    maker = RunMaker(path, names=names).begin().search(12).finish()
    run = maker.run
    write_json(run.manifest_file, read_json(run.manifest_file) | {"data": data})
    if test is not None:
        write_json(run.best / "config.json", {"trained_on": {"test": test}})
    for seed, each in enumerate(predictions or [], 1):
        folder = run.finals / "search-3" / "retrain" / f"seed-{seed}"
        save_predictions(folder / "test.npz", each)
    return run


def shuffled(predictions: list[Predictions], seed: int = 5) -> list[Predictions]:
    order = np.random.default_rng(seed).permutation(len(predictions[0].paths))
    return [
        Predictions(each.logits[order], each.labels[order], [each.paths[k] for k in order])
        for each in predictions
    ]
