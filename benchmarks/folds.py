"""What folds are worth on small data: which configuration they choose, tested on many images.

Every search draws a few images of each class from the training and validation parts of a data set,
and configurations from `search_spaces/frozen_head.yaml` (EfficientNet-Lite0). It trains the
configurations on one split and on every fold of the images. Each arm takes the best one by its own
rule, which is trained on all of the drawn images and tested on the whole test part:

- ``split``: the best on the validation part of the split;
- ``more``: the same, over as many configurations as the arm ``folds`` has trainings;
- ``folds``: the best mean, where ASHA gives the next fold only to trials that deserve it;
- ``all``: the best mean over all folds of all configurations.

    python benchmarks/folds.py --searches 20 --images 15     # an hour of a core; goes on
    python benchmarks/folds.py --page
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _photos import parquet_files
from _report import RESULTS, publish, table
from scipy.stats import t as student

from gsfl_tune.data import cache_directory
from gsfl_tune.data.folds import Fold
from gsfl_tune.data.sources import create_source
from gsfl_tune.experiment import Experiment
from gsfl_tune.search.samplers.configurations import Anywhere
from gsfl_tune.search.schedulers.asha import Asha
from gsfl_tune.training import Training, Workspace
from gsfl_tune.training.fit_groups import fit_groups
from gsfl_tune.training.fold_workspace import FoldWorkspace

LOG = RESULTS / "folds.jsonl"
SPACE = Path(__file__).parents[1] / "search_spaces" / "frozen_head.yaml"
ARMS = ("split", "more", "folds", "all")
REDUCTION = 2

Key = tuple[int, str, int]
"""A search, what was trained (``split``, ``fold 1``, ``test``), and the configuration."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="clothing", choices=["grocery", "clothing"])
    parser.add_argument("--images", type=int, default=15, help="images of each class")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--configurations", type=int, default=12)
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--log", type=Path, default=LOG)
    parser.add_argument("--page", action="store_true", help="train nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.page:
        for search in range(args.searches):
            Search(args, search).run()
    text = page(args)
    if args.log == LOG:
        publish("folds", "Folds on small data", text)
    else:
        print(text)


def setting(args: argparse.Namespace) -> dict[str, Any]:
    """What rows must agree in to be compared."""
    return {name: getattr(args, name) for name in ("data", "images", "folds", "configurations")}


def rows(args: argparse.Namespace) -> dict[Key, float]:
    """Accuracies that were measured so far with these settings."""
    if not args.log.exists():
        return {}
    listed = [json.loads(line) for line in args.log.read_text().splitlines()]
    return {
        (row["search"], row["what"], row["number"]): row["accuracy"]
        for row in listed
        if setting(args).items() <= row.items()
    }


class Search:
    """One search: images, configurations and splits of its own."""

    def __init__(self, args: argparse.Namespace, number: int) -> None:
        self.args, self.number = args, number
        self.known = rows(args)
        self._opened: tuple[Experiment, Workspace] | None = None

    def run(self) -> None:
        """Trains what the log lacks."""
        for number in range(self.args.configurations):
            for fold in range(self.args.folds):
                self.accuracy(f"fold {fold + 1}", number)
        trainings = pruned(self.known, self.number, self.args)[1]
        for number in range(trainings):
            self.accuracy("split", number)
        for number in {chosen(self.known, self.number, arm, self.args) for arm in ARMS}:
            self.accuracy("test", number)

    def accuracy(self, what: str, number: int) -> None:
        """Trains a configuration, unless the log has it."""
        key = (self.number, what, number)
        if key in self.known:
            return
        experiment, workspace = self._open()
        drawn = experiment.space.suggest(Anywhere(np.random.default_rng((self.number, number))))
        config = experiment.configure(drawn)
        if what.startswith("fold"):
            fold = Fold(int(what.split()[1]) - 1, self.args.folds)
            workspace = FoldWorkspace(workspace, fold)
        part = "test" if what == "test" else "validation"
        with tempfile.TemporaryDirectory() as directory:
            fit = "train+validation" if what == "test" else "train"
            training = Training(config, workspace, Path(directory), seed=1, fit=fit)
            while not training.finished:
                training.run_epoch()
            self.known[key] = training.predict(part).metrics()["accuracy"]
        row = {"search": self.number, "what": what, "number": number}
        with self.args.log.open("a") as file:
            row |= {"accuracy": self.known[key], **setting(self.args)}
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)

    def _open(self) -> tuple[Experiment, Workspace]:
        if self._opened is None:
            paths = json.dumps([str(path) for path in parquet_files(self.args.data).values()])
            overrides = [
                "data.source=parquet",
                f"data.path={paths}",
                "data.label_column=label",
                "data.split.validation=resplit",
                f"data.split.seed={self.number}",
                "model.backbone=tf_efficientnet_lite0",
                "training.head.epochs=10",
            ]
            everything = Experiment.load(SPACE, overrides=overrides).defaults().data
            samples = create_source(everything, cache_directory()).samples
            random = np.random.default_rng(self.number)
            free = [sample for sample in samples if sample.part != "test"]
            kept: list[str] = []
            for label in sorted({sample.label for sample in free}):
                own = [sample.path for sample in free if sample.label == label]
                kept += random.permutation(own)[: self.args.images].tolist()
            left_out = sorted({sample.path for sample in free} - set(kept))
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
                file.write("\n".join(left_out))
                file.flush()
                experiment = Experiment.load(
                    SPACE, overrides=[*overrides, f"data.exclude={file.name}"]
                )
                workspace = Workspace.open(experiment.defaults().data)
                self._opened = fit_groups(experiment, workspace), workspace
        return self._opened


def pruned(known: dict[Key, float], search: int, args: argparse.Namespace) -> tuple[int, int]:
    """The choice of folds under ASHA with one slot, and its number of trainings."""
    asha = Asha(args.folds, reduction=REDUCTION)
    means: dict[int, float] = {}
    trainings = 0
    for number in range(args.configurations):
        values: list[float] = []
        for fold in range(args.folds):
            values.append(known[search, f"fold {fold + 1}", number])
            trainings += 1
            if asha.record(number, fold, float(np.mean(values))):
                break
        if len(values) == args.folds:
            means[number] = float(np.mean(values))
    return max(means, key=lambda number: (means[number], -number)), trainings


def chosen(known: dict[Key, float], search: int, arm: str, args: argparse.Namespace) -> int:
    """The configuration that an arm takes; of equals the first."""
    if arm == "folds":
        return pruned(known, search, args)[0]
    count, whats = args.configurations, ["split"]
    if arm == "more":
        count = pruned(known, search, args)[1]
    if arm == "all":
        whats = [f"fold {fold + 1}" for fold in range(args.folds)]

    def value(number: int) -> tuple[float, int]:
        return float(np.mean([known[search, what, number] for what in whats])), -number

    return max(range(count), key=value)


def page(args: argparse.Namespace) -> str:
    """One row an arm, with its difference from a single split over the searches."""
    known = rows(args)
    whole = sorted({search for search, what, _ in known if what == "test"})
    # Of a run that was stopped, the searches that are whole.
    whole = [search for search in whole if _complete(known, search, args)]
    if not whole:
        return "No search is complete yet."
    tested = {
        arm: np.array([known[s, "test", chosen(known, s, arm, args)] for s in whole])
        for arm in ARMS
    }
    trainings = {
        "split": float(args.configurations),
        "all": float(args.configurations * args.folds),
        "more": float(np.mean([pruned(known, s, args)[1] for s in whole])),
    }
    trainings["folds"] = trainings["more"]
    cells = []
    for arm in ARMS:
        gained = 100 * (tested[arm] - tested["split"])
        better, worse = int((gained > 0).sum()), int((gained < 0).sum())
        cells.append(
            [
                arm,
                f"{trainings[arm]:.1f}",
                f"{tested[arm].mean():.2%}",
                _interval(gained),
                better,
                worse,
            ]
        )
    head = ["chosen by", "trainings", "test accuracy", "against split, points", "better", "worse"]
    return (
        f"{args.data}, {args.images} images of each class, {args.folds} folds, "
        f"{args.configurations} configurations, {len(whole)} searches; 95 % intervals over "
        f"searches (Student's t):\n\n{table(head, cells)}"
    )


def _complete(known: dict[Key, float], search: int, args: argparse.Namespace) -> bool:
    try:
        return all((search, "test", chosen(known, search, arm, args)) in known for arm in ARMS)
    except KeyError:
        return False


def _interval(gained: np.ndarray) -> str:
    count = len(gained)
    if count < 2:
        return f"{gained.mean():+.2f}"
    half = student.ppf(0.975, count - 1) * gained.std(ddof=1) / math.sqrt(count)
    return f"{gained.mean():+.2f} ({gained.mean() - half:+.2f} to {gained.mean() + half:+.2f})"


if __name__ == "__main__":
    main()
