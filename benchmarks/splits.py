"""What a validation part is worth that is drawn image by image, or held out whole where it must be.

Training and validation images of grocery (photographed shelf by shelf; the official test part was
photographed elsewhere) are joined and split anew in both ways. Every search has configurations of
its own, drawn from `search_spaces/frozen_head.yaml` (EfficientNet-Lite0), and splits of its own,
one of each kind. It trains all of them on both training parts and takes the best on each
validation part. The two chosen ones are trained on all images of both parts and tested with the
same seed, so that searches are independent of each other but for the images.

    python benchmarks/splits.py --searches 20 --configurations 8     # an hour of a core; goes on
    python benchmarks/splits.py --first 40 --searches 60             # another sample
    python benchmarks/splits.py --page
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

from gsfl_tune.evidence.yardstick import measure_probe
from gsfl_tune.experiment import Experiment
from gsfl_tune.search.samplers.configurations import Anywhere
from gsfl_tune.training import Training, Workspace

LOG = RESULTS / "splits.jsonl"
SPACE = Path(__file__).parents[1] / "search_spaces" / "frozen_head.yaml"
KINDS = ("image", "auto")
# Stands for the tuned probe among the numbers of configurations.
PROBE = -1
# Splits on which the probe is measured too.
PROBED = 6
# First number and size of each sample of searches. The size of the second was fixed before its
# first search: its result is shown when all of it is measured, and not before.
SAMPLES = ((0, 40), (40, 60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="grocery", choices=["grocery", "clothing"])
    parser.add_argument("--configurations", type=int, default=8)
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first search")
    parser.add_argument("--page", action="store_true", help="train nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.page:
        for search in range(args.first, args.first + args.searches):
            measure(args.data, args.configurations, search)
    publish("splits", "Validation parts of bursts", page(args.configurations))


def rows() -> list[dict[str, Any]]:
    """What was measured so far."""
    return [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []


def measure(data: str, configurations: int, search: int) -> None:
    """Adds to the log what a search lacks there."""
    done = {(r["data"], r["kind"], r["search"], r["number"]) for r in rows()}
    numbers = range(configurations)
    for kind in KINDS:
        wanted = [*numbers, *([PROBE] if search < PROBED else [])]
        missing = [number for number in wanted if (data, kind, search, number) not in done]
        if not missing:
            continue
        experiment = open_experiment(data, kind, search)
        workspace = Workspace.open(experiment.defaults().data)
        for number in missing:
            name = "probe" if number == PROBE else ""
            add(data, kind, search, number, train(experiment, workspace, (search, number), name))
    chosen = {best(rows(), data, kind, search, configurations) for kind in KINDS}
    missing = [number for number in sorted(chosen) if (data, "test", search, number) not in done]
    if missing:
        experiment = open_experiment(data, "image", search)
        workspace = Workspace.open(experiment.defaults().data)
        for number in missing:
            found = train(experiment, workspace, (search, number), "test")
            add(data, "test", search, number, found)


def best(own: list[dict[str, Any]], data: str, kind: str, search: int, configurations: int) -> int:
    """The configuration that a search takes: the best on validation, of equals the first.

    Only the first ones count: a log may hold further ones, of a longer search that was stopped.
    """
    found = [
        (-row["validation"], row["number"])
        for row in own
        if (row["data"], row["kind"], row["search"]) == (data, kind, search)
        and 0 <= row["number"] < configurations
    ]
    return int(min(found)[1])


def open_experiment(data: str, kind: str, search: int) -> Experiment:
    """The space on a data set that is split in one of both ways."""
    paths = json.dumps([str(path) for path in parquet_files(data).values()])
    return Experiment.load(
        SPACE,
        overrides=[
            "data.source=parquet",
            f"data.path={paths}",
            "data.label_column=label",
            "data.split.validation=resplit",
            f"data.split.by={kind}",
            f"data.split.seed={search}",
            "model.backbone=tf_efficientnet_lite0",
            "training.head.epochs=10",
        ],
    )


def train(
    experiment: Experiment, workspace: Workspace, which: tuple[int, int], what: str
) -> dict[str, float]:
    """Accuracies of one configuration (search and number), or of the tuned probe."""
    if what == "probe":
        found = measure_probe(workspace, experiment.defaults())
        right = found.logits.argmax(1) == found.labels
        return {"validation": found.validation["accuracy"], "test": float(right.mean())}
    drawn = experiment.space.suggest(Anywhere(np.random.default_rng(which)))
    config = experiment.configure(drawn)
    with tempfile.TemporaryDirectory() as directory:
        fit = "train+validation" if what == "test" else "train"
        training = Training(config, workspace, Path(directory), seed=1, fit=fit)
        while not training.finished:
            training.run_epoch()
        part = "test" if what == "test" else "validation"
        return {part: training.predict(part).metrics()["accuracy"]}


def add(data: str, kind: str, search: int, number: int, found: dict[str, float]) -> None:
    """Writes one line to the log."""
    row = {"data": data, "kind": kind, "search": search, "number": number, **found}
    print(row, flush=True)
    with LOG.open("a") as file:
        file.write(json.dumps(row) + "\n")


def page(configurations: int) -> str:
    """A table of the probes, and one of the searches over so many configurations each."""
    parts = []
    for data in dict.fromkeys(row["data"] for row in rows()):
        own = [row for row in rows() if row["data"] == data]
        told = [f"## {data}", probes(own)]
        for first, size in SAMPLES:
            sample = [row for row in own if first <= row["search"] < first + size]
            if sample:
                told.append(searches(sample, configurations, size))
        parts.append("\n\n".join(told))
    return "\n\n".join(parts)


def probes(own: list[dict[str, Any]]) -> str:
    """How far the tuned linear probe's accuracies lie apart."""
    cells = []
    for kind in KINDS:
        found = [row for row in own if row["kind"] == kind and row["number"] == PROBE]
        gaps = np.array([row["validation"] - row["test"] for row in found]) * 100
        means = [np.mean([row[part] for row in found]) for part in ("validation", "test")]
        ends = f"{gaps.min():+.1f} to {gaps.max():+.1f}"
        cells.append(
            [kind, len(found), *(f"{mean:.1%}" for mean in means), f"{gaps.mean():+.1f}", ends]
        )
    head = ["data.split.by", "splits", "validation", "test", "gap, points", "least and largest"]
    return "Tuned linear probe:\n\n" + table(head, cells)


def searches(own: list[dict[str, Any]], configurations: int, size: int) -> str:
    """What the configuration that a search takes has on the test part, in one sample."""
    data = own[0]["data"]
    tested = {(row["search"], row["number"]): row["test"] for row in own if row["kind"] == "test"}
    tried = {(row["kind"], row["search"], row["number"]) for row in own}
    # Of a run that was stopped, the searches that are whole.
    chosen: dict[str, list[int]] = {kind: [] for kind in KINDS}
    whole = []
    for search in sorted({row["search"] for row in own}):
        wanted = {(kind, search, n) for kind in KINDS for n in range(configurations)}
        if not wanted <= tried:
            continue
        found = {kind: best(own, data, kind, search, configurations) for kind in KINDS}
        if all((search, number) in tested for number in found.values()):
            whole.append(search)
            for kind, number in found.items():
                chosen[kind].append(number)
    if len(whole) < size:
        return (
            f"Another sample of {size} searches over {configurations} configurations is being "
            f"measured: {len(whole)} are whole."
        )
    have = {
        kind: np.array([tested[key] for key in zip(whole, chosen[kind], strict=True)])
        for kind in KINDS
    }
    gained = 100 * (have["auto"] - have["image"])
    count = len(gained)
    half = student.ppf(0.975, count - 1) * gained.std(ddof=1) / math.sqrt(count)
    same = sum(a == b for a, b in zip(*chosen.values(), strict=True))
    return (
        f"{count} searches, each over {configurations} configurations of its own on splits of its "
        f"own: the chosen one has {have['image'].mean():.2%} on the test part where validation "
        f"images are drawn one by one, {have['auto'].mean():.2%} with `auto`: {gained.mean():+.2f} "
        f"points (95 % interval over searches, Student's t, {gained.mean() - half:+.2f} to "
        f"{gained.mean() + half:+.2f}; better in {int((gained > 0).sum())}, worse in "
        f"{int((gained < 0).sum())}, the same configuration in {same})."
    )


if __name__ == "__main__":
    main()
