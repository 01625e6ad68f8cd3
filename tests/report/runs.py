"""Run directories made of files, as a search would leave them: any size, any state."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from gsfl_tune.run import RunDirectory, WorkerLog
from gsfl_tune.run.results import (
    IMAGES_ALONE,
    SEEDS_AND_IMAGES,
    Difference,
    Finalist,
    Finding,
    Interval,
    Outcome,
    Probe,
    Results,
    Score,
    write_results,
)

EXPERIMENT = """\
name: birds
data: {source: typefaces}
model:
  dropout: {float: [0, 0.7]}
  groups:
    method: {choice: [kmeans, random]}
    count: {int: [1, 10], when: {model.groups.method: kmeans}}
loss:
  shared_center: {float: [1.0e-5, 1], log: true}
training:
  head: {epochs: 27, learning_rate: {float: [1.0e-4, 1.0e-2], log: true}}
search: {trials: 30}
"""
RUNGS = (3, 9, 27)
PROBED = {"f": 0.9, "s": 0.8, "d": 0.85, "d of the control": 0.86}


@dataclass(frozen=True)
class RunMaker:
    """Writes the files of a run.

    Attributes:
        path: The run directory.
        names: Of the classes.
        groups: Number of groups; 0 for a plain winner.
        seed: Of everything that is drawn.
    """

    path: Path
    names: tuple[str, ...] = tuple(f"gull {number}" for number in range(12))
    groups: int = 3
    seed: int = 0

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.path)

    def begin(self) -> RunMaker:
        self.path.mkdir(parents=True, exist_ok=True)
        self.run.experiment_file.write_text(EXPERIMENT)
        self._json(self.run.manifest_file, {
            "format": 1,
            "name": "birds",
            "seconds": {"preflight": 2.5, "search": 61.0},
            "environment": {"python": "3.11", "packages": {"torch": "2.15"}, "system": "Linux"},
        })  # fmt: skip
        self._json(self.run.data_file, {
            "classes": list(self.names),
            "counts": {"train": 300, "validation": 60, "test": 20 * len(self.names)},
            "class_counts": {name: {"test": 20} for name in self.names},
            "broken": [],
        })  # fmt: skip
        return self

    def search(
        self,
        trials: int = 30,
        *,
        running: int = 0,
        failed: int = 2,
        latency: bool = False,
        busy: int = 1,
    ) -> RunMaker:
        """Trials whose result depends on dropout and the learning rate, stopped at rungs.

        Args:
            trials: How many.
            running: How many of them still run.
            failed: How many of them failed.
            latency: Whether those that ended have one.
            busy: From 2 on, one in this many was measured while the machine was busy.
        """
        random = np.random.default_rng(self.seed)
        log = WorkerLog(self.run)
        rows = []
        start = 1_790_000_000.0
        free = [start, start]
        for number in range(trials):
            params: dict[str, Any] = {
                "model.dropout": random.uniform(0, 0.7),
                "model.groups.method": random.choice(["kmeans", "random"]),
                "loss.shared_center": 10 ** random.uniform(-5, 0),
                "training.head.learning_rate": 10 ** random.uniform(-4, -2),
            }
            if params["model.groups.method"] == "kmeans":
                params["model.groups.count"] = int(random.integers(1, 11))
            rate = math.log10(params["training.head.learning_rate"]) + 3
            height = 0.8 - 0.6 * abs(params["model.dropout"] - 0.3) - 0.2 * rate**2
            rung = 2 if number % 3 == 0 else int(random.integers(0, 2))
            state = "COMPLETE" if rung == 2 else "PRUNED"
            epochs = RUNGS[rung]
            if number < failed:
                state, rung, epochs = "FAIL", -1, 2
            elif number >= trials - running:
                state, rung, epochs = "RUNNING", 0, 4
            curve = height * (1 - np.exp(-(1 + np.arange(epochs)) / 5)) + random.normal(
                0, 0.004, epochs
            )
            self.epochs(number, curve.tolist())
            worker = int(np.argmin(free))
            begin, free[worker] = free[worker], free[worker] + 0.2 * epochs
            for k in range(rung + 1):
                before = RUNGS[k - 1] if k else 0
                log.append({
                    "study": "search", "trial": number, "rung": k, "epoch": RUNGS[k],
                    "node": "10.0.0.1", "worker": 100 + worker, "gpus": "",
                    "begin": begin + 0.2 * before, "end": begin + 0.2 * RUNGS[k],
                })  # fmt: skip
            row = {
                "study": "search",
                "number": number,
                "state": state,
                "value": float(curve[-1]) if state == "COMPLETE" else None,
                "reason": f"non-finite train/loss in epoch {number + 3} (head stage)"
                if state == "FAIL"
                else None,
                "ended": None,
                "batch_halved": False,
                "origin": "published" if number == 0 else None,
                "epochs": epochs,
                "seconds": 0.2 * epochs,
                "started": pd.Timestamp(begin, unit="s"),
                "finished": None if state == "RUNNING" else pd.Timestamp(free[worker], unit="s"),
            }
            if latency and state == "COMPLETE":
                row["latency_ms"] = 2 + 8 * row["value"] + 0.3 * (number % 4)
                if busy > 1:
                    row["latency_reliable"] = bool(number % busy)
                    row |= {"latency_spread": 0.35, "latency_others": 1.8}
            row |= {f"rungs.{k}": float(curve[RUNGS[k] - 1]) for k in range(rung + 1)}
            rows.append(row | {f"params.{name}": value for name, value in params.items()})
        frame = pd.DataFrame(rows)
        for name in ("started", "finished"):
            frame[name] = pd.to_datetime(frame[name])
        frame.to_parquet(self.run.trials_parquet)
        return self

    def epochs(self, number: int, values: list[float]) -> None:
        folder = self.run.trial("search", number)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            {
                "epoch": epoch,
                "stage": "head",
                "train/loss": 0.4 + 2 / epoch,
                "train/cross_entropy": 0.1 + 2 / epoch,
                "validation/accuracy": value,
                "validation/nll": 0.5 + 1.5 / epoch,
                "seconds": 0.2,
            }
            for epoch, value in enumerate(values, 1)
        ]
        (folder / "epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def finish(
        self,
        *,
        control: bool = True,
        seeds: int = 3,
        findings: Sequence[Finding] = (),
        ahead: bool = False,
        pareto: Sequence[tuple[int, float, float]] = (),
    ) -> RunMaker:
        """Results, without evidence.

        Args:
            control: Whether there is one.
            seeds: Of winner and control.
            findings: That the run has.
            ahead: Whether the linear probe is better on validation.
            pareto: Trials with accuracy and latency.
        """
        winner = self._outcome([0.71, 0.74, 0.72][:seeds])
        write_results(
            self.run.results_file,
            Results(
                name="birds",
                metric="validation/accuracy",
                trials={"COMPLETE": 10, "PRUNED": 18, "FAIL": 2, "RUNNING": 0},
                winner=winner,
                control=self._outcome([0.69, 0.7, 0.68][:seeds], kind="tuned") if control else None,
                difference=Difference(0.033, Interval(0.004, 0.061, method=SEEDS_AND_IMAGES))
                if control
                else None,
                probe=Probe(
                    _scores([0.65]),
                    Difference(0.07, Interval(0.02, 0.12, method=SEEDS_AND_IMAGES)),
                    _scores([0.949 if ahead else 0.75]),
                    interval=Interval(0.6, 0.7, method=SEEDS_AND_IMAGES),
                ),
                findings=list(findings),
                finalists=[Finalist(3, _scores([0.7]))],
                pareto=[
                    {"trial": trial, "accuracy": accuracy, "latency_ms": cost, "params": {}}
                    for trial, accuracy, cost in pareto
                ],
                groups=self._groups(),
                cost={"seconds": {"search": 61.0, "retraining": 30.0, "total": 91.0}, "slots": 2},
                environment={"python": "3.11", "packages": {"torch": "2.15"}, "system": "Linux"},
            ),
        )
        return self

    def evidence(self, **changes: Any) -> RunMaker:
        """Everything that evidence can say; `changes` replace parts, None takes one away."""
        count = len(self.names)
        random = np.random.default_rng(self.seed)
        labels = np.repeat(np.arange(count), 20)
        wrong = random.random(len(labels)) < 0.3
        predicted = np.where(wrong, random.integers(0, count, len(labels)), labels)
        matrix = np.zeros((count, count), int)
        np.add.at(matrix, (labels, predicted), 1)
        groups = [self._groups().get(name, 0) for name in self.names]
        order = sorted(range(count), key=lambda index: (groups[index], index))
        accuracy = np.diag(matrix) / 20
        worst = np.argsort(accuracy)[: max(1, count // 10)]
        content: dict[str, Any] = {
            "per_class_accuracy": dict(zip(self.names, accuracy.tolist(), strict=True)),
            "worst_tenth": {
                "mean": float(accuracy[worst].mean()),
                "classes": [self.names[index] for index in worst],
            },
            "most_confused": [
                {"classes": list(self.names[:2]), "counts": [4, 1], "share": 0.125},
                {"classes": list(self.names[2:4]), "counts": [2, 2], "share": 0.1},
            ],
            "group_errors": {
                "inside": 0.2, "across": 0.1, "share_inside": 0.66, "expected_inside": 0.3,
            },
            "confusion": {"order": order, "matrix": matrix.tolist()},
            "calibration": {
                "ece": 0.043,
                "nll": 0.9,
                "bins": [
                    {"low": k / 10, "high": (k + 1) / 10, "count": 5 * k, "accuracy": k / 10 + 0.03,
                     "confidence": k / 10 + 0.05}
                    for k in range(10)
                ],
                "temperature": 1.6,
                "after": {
                    "ece": 0.021,
                    "nll": 0.8,
                    "bins": [
                        {"low": k / 10, "high": (k + 1) / 10, "count": 5 * k,
                         "accuracy": k / 10 + 0.03, "confidence": k / 10 + 0.04}
                        for k in range(10)
                    ],
                },
                "risk_coverage": [[k / 20, 0.3 * (k / 20) ** 2, 1 - k / 25] for k in range(1, 21)],
                "auto": {"threshold": 0.55, "coverage": 0.7, "risk": 0.14},
            },
            "probes": {
                "chance": 0.4,
                "parts": [
                    {"part": part, "groups": {"mean": mean, "std": 0.02},
                     "random_groups": {"mean": mean - 0.2, "std": 0.03}}
                    for part, mean in PROBED.items()
                ],
            },
            "swap": {
                "pairs": 500, "group_follows_shared": 0.71, "class_follows_discriminative": 0.44,
                "chance_group": 0.33, "chance_class": 0.08, "judge_accuracy": 0.8,
            },
            "map": {
                "method": "t-SNE",
                "points": [
                    {"image": index, "label": int(label), "predicted": int(predicted[index]),
                     "shared": random.normal(groups[label], 0.3, 2).tolist(),
                     "discriminative": random.normal(label, 0.3, 2).tolist()}
                    for index, label in enumerate(labels[:2000])
                ],
            },
            "pictures": self._pictures(),
        }  # fmt: skip
        content |= changes
        content = {key: value for key, value in content.items() if value is not None}
        self._json(self.run.evidence_file, content)
        return self

    def _pictures(self) -> list[dict[str, Any]]:
        folder = self.path / "evidence"
        folder.mkdir(exist_ok=True)
        random = np.random.default_rng(self.seed)
        entries = []
        kinds = (("confused", 2), ("group", min(2, max(1, self.groups))), ("gradcam", 2))
        for kind, many in kinds:
            for index in range(many):
                file = folder / f"{kind}-{index}.jpg"
                pixels = random.integers(0, 255, (60, 180, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(file, quality=80)
                names = self.names[2 * index : 2 * index + 2]
                if kind == "group":
                    names = tuple(n for n, g in self._groups().items() if g == index)
                entries.append({
                    "kind": kind, "file": f"evidence/{file.name}", "title": f"{kind} {index}",
                    "caption": "what is seen", "classes": list(names),
                })  # fmt: skip
        return entries

    def _groups(self) -> dict[str, int]:
        if not self.groups:
            return {}
        return {name: index % self.groups for index, name in enumerate(self.names)}

    def _outcome(self, accuracies: list[float], kind: str | None = None) -> Outcome:
        params = {"model.dropout": 0.302, "training.head.learning_rate": 0.0099}
        config = {
            "model": {"head": "gsfl" if self.groups else "plain", "dropout": 0.302},
            "training": {"head": {"learning_rate": 0.0099}},
        }
        return Outcome(
            config=config,
            validation=_scores([0.8, 0.81, 0.79] if kind is None else [0.78]),
            test=_scores(accuracies),
            seeds=[1 + index for index in range(len(accuracies))],
            params=params,
            trial=3,
            kind=kind,
            interval=Interval(
                min(accuracies) - 0.03,
                max(accuracies) + 0.03,
                method=SEEDS_AND_IMAGES if len(accuracies) > 1 else IMAGES_ALONE,
            ),
        )

    def _json(self, path: Path, content: Any) -> None:
        path.write_text(json.dumps(content))


def _scores(accuracies: list[float]) -> dict[str, Score]:
    names = ("accuracy", "balanced_accuracy", "top5", "nll", "ece")
    return {name: Score.of(accuracies) for name in names}
