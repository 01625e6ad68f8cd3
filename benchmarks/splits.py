"""What a validation part is worth that is drawn image by image, or held out whole where it must be.

Training and validation images of grocery (photographed shelf by shelf; the official test part was
photographed elsewhere) are joined and split anew in both ways, with several seeds. Configurations
drawn from `search_spaces/frozen_head.yaml` (EfficientNet-Lite0) are trained on every training part
and validated; each is trained once on all images of both parts and tested. A search is a random
half of the configurations, of which the best on validation images is taken: what does the chosen
one have on the test part?

    python benchmarks/splits.py --configurations 24 --seeds 4     # twenty minutes; goes on
    python benchmarks/splits.py --page
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _photos import parquet_files
from _report import RESULTS, publish, table

from gsfl_tune.evidence.yardstick import measure_probe
from gsfl_tune.experiment import Experiment
from gsfl_tune.search.samplers.configurations import Anywhere
from gsfl_tune.training import Training, Workspace

LOG = RESULTS / "splits.jsonl"
SPACE = Path(__file__).parents[1] / "search_spaces" / "frozen_head.yaml"
KINDS = ("image", "auto")
SEARCHES = 20
# Stands for the tuned probe among the numbers of configurations.
PROBE = -1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="grocery", choices=["grocery", "clothing"])
    parser.add_argument("--configurations", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--page", action="store_true", help="train nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.page:
        measure(args.data, args.configurations, args.seeds)
    publish("splits", "Validation parts of bursts", page())


def rows() -> list[dict[str, Any]]:
    """What was measured so far."""
    return [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []


def measure(data: str, configurations: int, seeds: int) -> None:
    """Adds what is missing to the log."""
    done = {(r["data"], r["kind"], r["seed"], r["number"]) for r in rows()}
    for seed in range(seeds):
        for kind in KINDS:
            experiment = open_experiment(data, kind, seed)
            workspace = Workspace.open(experiment.defaults().data)
            for number in (PROBE, *range(configurations)):
                if (data, kind, seed, number) not in done:
                    name = "probe" if number == PROBE else ""
                    add(data, kind, seed, number, train(experiment, workspace, number, name))
    experiment = open_experiment(data, "image", 0)
    workspace = Workspace.open(experiment.defaults().data)
    for number in range(configurations):
        if (data, "test", 0, number) not in done:
            add(data, "test", 0, number, train(experiment, workspace, number, "test"))


def open_experiment(data: str, kind: str, seed: int) -> Experiment:
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
            f"data.split.seed={seed}",
            "model.backbone=tf_efficientnet_lite0",
            "training.head.epochs=10",
        ],
    )


def train(experiment: Experiment, workspace: Workspace, number: int, what: str) -> dict[str, float]:
    """Accuracies of one configuration, or of the tuned probe."""
    if what == "probe":
        found = measure_probe(workspace, experiment.defaults())
        right = found.logits.argmax(1) == found.labels
        return {"validation": found.validation["accuracy"], "test": float(right.mean())}
    drawn = experiment.space.suggest(Anywhere(np.random.default_rng(number)))
    config = experiment.configure(drawn)
    with tempfile.TemporaryDirectory() as directory:
        fit = "train+validation" if what == "test" else "train"
        training = Training(config, workspace, Path(directory), seed=1, fit=fit)
        while not training.finished:
            training.run_epoch()
        part = "test" if what == "test" else "validation"
        return {part: training.predict(part).metrics()["accuracy"]}


def add(data: str, kind: str, seed: int, number: int, found: dict[str, float]) -> None:
    """Writes one line to the log."""
    row = {"data": data, "kind": kind, "seed": seed, "number": number, **found}
    print(row, flush=True)
    with LOG.open("a") as file:
        file.write(json.dumps(row) + "\n")


def page() -> str:
    """A table of the probes, and one of the searches."""
    parts = []
    for data in dict.fromkeys(row["data"] for row in rows()):
        own = [row for row in rows() if row["data"] == data]
        parts.append(f"## {data}\n\n{probes(own)}\n\n{searches(own)}")
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


def searches(own: list[dict[str, Any]]) -> str:
    """What the configuration that a search takes has on the test part."""
    tested = {row["number"]: row["test"] for row in own if row["kind"] == "test"}
    validated = {(r["kind"], r["seed"], r["number"]): r.get("validation") for r in own}
    # Of a run that was stopped, the splits that are whole.
    seeds = sorted(
        seed
        for seed in {row["seed"] for row in own if row["kind"] in KINDS}
        if all((kind, seed, number) in validated for kind in KINDS for number in tested)
    )
    generator = np.random.default_rng(0)
    chosen: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for index in range(SEARCHES):
        numbers = generator.permutation(sorted(tested))[: len(tested) // 2].tolist()
        seed = seeds[index % len(seeds)]
        for kind in KINDS:
            best = max(numbers, key=lambda n: (validated[kind, seed, n], -n))
            chosen[kind].append(tested[best])
    oracle = max(tested.values())
    gained = 100 * (np.array(chosen["auto"]) - np.array(chosen["image"]))
    draws = generator.choice(gained, (10_000, len(gained))).mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    ranks = [
        f"{kind}: {np.mean([spearman(own, kind, seed) for seed in seeds]):.2f}" for kind in KINDS
    ]
    return (
        f"{SEARCHES} searches, each over half of {len(tested)} configurations: the chosen one has "
        f"{np.mean(chosen['image']):.2%} on the test part where validation images are drawn one by "
        f"one, {np.mean(chosen['auto']):.2%} with `auto`: {gained.mean():+.2f} points (95 % "
        f"interval over searches {low:+.2f} to {high:+.2f}; better in {int((gained > 0).sum())}, "
        f"worse in {int((gained < 0).sum())}). The best of all has {oracle:.2%}. The searches "
        "share configurations and splits, so that the interval is too narrow.\n\n"
        "Rank correlation of validation and test accuracy over the configurations: "
        f"{', '.join(ranks)}."
    )


def spearman(own: list[dict[str, Any]], kind: str, seed: int) -> float:
    """Rank correlation of validation and test accuracies of one split."""
    from scipy.stats import spearmanr

    tested = {row["number"]: row["test"] for row in own if row["kind"] == "test"}
    found = {
        row["number"]: row["validation"]
        for row in own
        if row["kind"] == kind and row["seed"] == seed and row["number"] >= 0
    }
    both = sorted(tested.keys() & found.keys())
    return float(spearmanr([tested[n] for n in both], [found[n] for n in both]).statistic)


if __name__ == "__main__":
    main()
