"""What each technique gives, alone on the template's defaults: the table of docs/methods.md.

A training is what `search_spaces/image_folder.yaml` makes of its defaults, with EfficientNet-Lite0
(package weights), 10 head epochs and 8 on the last two blocks, at 160 px (tested at 192) so that
three seeds of everything fit into a night on two cores. It trains on the training part alone and is
tested on the official test part. A technique changes one thing; those that need new augmentation in
every epoch are compared with a base that has it too. A difference is paired by test image, and its
interval covers seeds and test images. With some forty techniques a 95 % interval misses 0 by chance
for two of them: a difference near the end of its interval is a hint, not a result.

Seconds are CPU time of the training, the smallest over its seeds, so that caches that the first
training builds do not count. Memory is the peak of the process. Every training is a process of its
own with one thread; other work on the machine changes neither the accuracy nor, much, CPU time.

What was measured stays in ``results/methods.jsonl``, with its machine: a run does what is missing
there, in the order of the list. Only trainings of the same seed on the same machine are compared,
as the same seed gives other numbers on another processor.

    python benchmarks/methods.py --data grocery clothing        # hours; may be stopped at any time
    python benchmarks/methods.py --technique mixup pmg          # these alone
    python benchmarks/methods.py --page                         # the page of what is there
"""

from __future__ import annotations

import argparse
import fcntl
import json
import resource
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _photos import parquet_files
from _report import RESULTS, machine, publish, table

if TYPE_CHECKING:
    from gsfl_tune.experiment import Experiment

LOG = RESULTS / "methods.jsonl"
TEMPLATE = Path(__file__).parents[1] / "search_spaces" / "image_folder.yaml"
SIZE, TESTED = 160, 192
FINETUNE = "training.finetune"
BASE, FRESH = "defaults", "defaults, new views"
# Rows of the first version of this script do not name their machine.
UNKNOWN = "a machine that was not noted, with an earlier version"


@dataclass(frozen=True)
class AClass:
    """A number that is multiplied by the number of classes of the data set."""

    value: float


# One technique alone, on cached activations.
CACHED: dict[str, dict[str, Any]] = {
    "plain head": {"model.head": "plain"},
    "linear head": {"model.head": "linear"},
    "every image once": {"training.balanced_sampling": 0},
    "R-Drop": {"training.method": "rdrop"},
    "SAM": {"training.method": "sam"},
    "EMA 0.98": {"training.ema": 0.98},
    "ISDA": {"loss.isda.weight": 1.0},
    "mixup 0.2": {f"{FINETUNE}.mixup": 0.2},
    "CutMix": {f"{FINETUNE}.cutmix": 1.0},
    "Muon": {f"{FINETUNE}.optimizer": "muon"},
    "schedule-free": {f"{FINETUNE}.optimizer": "schedule_free"},
    "layer decay 0.8": {f"{FINETUNE}.layer_decay": 0.8},
    "drop path 0.1": {f"{FINETUNE}.drop_path": 0.1},
    "two views": {"training.method": "two_views"},
    "centre loss 0.01": {"loss.center.weight": 0.01},
    "ArcFace 0.1": {"loss.metric_learning.weight": 0.1},
    "proxy anchor 0.1": {
        "loss.metric_learning.weight": 0.1,
        "loss.metric_learning.kind": "proxy_anchor",
    },
    # The authors advise 0.1 to 0.2 times the number of classes for half of what is the term here.
    "pairwise confusion, 0.06 a class": {"loss.pairwise_confusion.weight": AClass(0.06)},
    "HSIC of s and d, 0.1": {"loss.independence.weight": 0.1},
    "group reversal 0.1": {"loss.group_reversal.weight": 0.1},
    "floor of s, 0.1": {"loss.shared_variance.weight": 0.1},
    "class weights 0.5": {"loss.class_weights": 0.5},
    "logit adjustment 0.5": {"loss.logit_adjustment": 0.5},
    "focal 1": {"loss.focal": 1.0},
    "LoRA, rank 16": {f"{FINETUNE}.train": "lora", f"{FINETUNE}.adapter_rank": 16},
    "norms alone": {f"{FINETUNE}.train": "norms"},
    "GeM pooling": {"model.pooling": "gem"},
    "covariance pooling": {"model.pooling": "isqrt_cov", "model.pooling_channels": 64},
    "compact bilinear pooling": {"model.pooling": "compact_bilinear", "model.pooling_dim": 4096},
    "two layers": {"model.pooling": "average", "model.layer_b": 2},
    "two layers, bilinear": {
        "model.pooling": "bilinear",
        "model.pooling_channels": 64,
        "model.layer_b": 2,
    },
    "MixStyle 0.5": {f"{FINETUNE}.mixstyle": 0.5},
    "gradual unfreezing": {f"{FINETUNE}.unfreeze": 2},
    "centres at class means": {"loss.center_init": "class_mean"},
    "detached reconstruction": {"loss.reconstruction_target": "detach"},
    "one group": {"model.groups.method": "single"},
    "random groups": {"model.groups.method": "random"},
    "1 block": {f"{FINETUNE}.blocks": 1},
    "3 blocks": {f"{FINETUNE}.blocks": 3},
    "8 views": {"data.views": 8},
}
# Those that need the images in every epoch.
IMAGES: dict[str, dict[str, Any]] = {
    "TrivialAugment": {"data.augment.policy": "trivial"},
    "RandAugment": {"data.augment.policy": "rand"},
    "erasing 0.25": {"data.augment.erasing": 0.25},
    "colour 0.2": {"data.augment.color": 0.2},
    "degraded 0.25": {"data.augment.degrade": 0.25},
    "Fourier amplitude 0.3": {f"{FINETUNE}.fourier": 0.3},
    "colour statistics 0.3": {f"{FINETUNE}.adain": 0.3},
    "progressive resizing 0.6": {f"{FINETUNE}.start_size": 0.6},
    "PMG": {"training.method": "pmg"},
    "PMG, joint prediction": {"training.method": "pmg", "training.pmg.prediction": "joint"},
    "SnapMix": {"training.method": "snapmix"},
    "attention crop and drop": {"training.method": "attention_crop"},
    "recurrent attention": {"training.method": "recurrent_attention"},
    "all blocks": {f"{FINETUNE}.blocks": "all"},
    "feature alignment": {"training.method": "feature_alignment"},
    "counterfactual attention": {"training.method": "counterfactual_attention"},
}
TECHNIQUES: dict[str, dict[str, Any]] = {
    BASE: {},
    **CACHED,
    FRESH: {"data.views": 0},
    **{name: {"data.views": 0, **changes} for name, changes in IMAGES.items()},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["grocery", "clothing"])
    parser.add_argument("--technique", nargs="+", choices=TECHNIQUES, default=list(TECHNIQUES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--page", action="store_true", help="train nothing")
    parser.add_argument("--one", nargs=3, metavar=("DATA", "TECHNIQUE", "SEED"))
    args = parser.parse_args()
    if args.one:
        data, name, seed = args.one
        print(json.dumps(measure(data, name, int(seed))))
        return
    if not args.page:
        jobs = [
            (data, name, seed)
            for name in args.technique
            for data in args.data
            for seed in range(1, args.seeds + 1)
        ]
        for job in jobs:
            if job not in {(row["data"], row["technique"], row["seed"]) for row in rows()}:
                run(*job)
    publish("methods", "What each technique gives", page(rows()))


def rows() -> list[dict[str, Any]]:
    """What was measured, one row a training."""
    if not LOG.exists():
        return []
    return [json.loads(line) for line in LOG.read_text().splitlines()]


def run(data: str, name: str, seed: int) -> None:
    """Trains in a process of its own, and keeps the row."""
    command = [sys.executable, __file__, "--one", data, name, str(seed)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(f"{data}, {name}, seed {seed}: failed", flush=True)
        return
    row = done.stdout.strip().splitlines()[-1]
    content = json.loads(row)
    print(data, name, seed, f"{content['test']:.1%}", content["cpu_seconds"], flush=True)
    with LOG.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(row + "\n")


def measure(data: str, name: str, seed: int) -> dict[str, Any]:
    """Trains and tests once."""
    import torch
    from recipes import trained_and_tested

    from gsfl_tune.training import Workspace

    torch.set_num_threads(1)
    paths = [str(path) for path in parquet_files(data).values()]
    images = {"data.source": "parquet", "data.path": json.dumps(paths)}
    # How many classes there are is known when the images are.
    workspace = Workspace.open(experiment(name, images, 1).defaults().data)
    config = experiment(name, images, workspace.dataset.class_count).defaults()
    found = trained_and_tested(config, workspace, seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"data": data, "technique": name, **found, "peak_mb": peak, "machine": machine()}


def experiment(name: str, images: dict[str, Any], classes: int) -> Experiment:
    """The template with one technique changed, on these images of so many classes.

    Raises:
        SystemExit: If the technique cannot be combined with the rest.
    """
    from gsfl_tune.experiment import Experiment
    from gsfl_tune.training.pricing.problems import cost_problems

    fixed: dict[str, Any] = {
        **images,
        "data.image_size": SIZE,
        "data.eval_image_size": TESTED,
        "model.backbone": "tf_efficientnet_lite0",
        "training.head.epochs": 10,
        f"{FINETUNE}.epochs": 8,
        f"{FINETUNE}.blocks": 2,
    }
    changes = [
        f"{path}={classes * value.value if isinstance(value, AClass) else value}"
        for path, value in {**fixed, **TECHNIQUES[name]}.items()
    ]
    template = Experiment.load(TEMPLATE, overrides=changes)
    found = template.fixed(template.space.leaf_values(template.default_params()))
    if problems := cost_problems(found):
        raise SystemExit("\n".join([f"{name}:", *map(str, problems)]))
    return found


def page(found: list[dict[str, Any]]) -> str:
    """One table a data set, best first."""
    parts = [
        f"EfficientNet-Lite0 at {SIZE} px, tested at {TESTED}; 10 head epochs, 8 on the last two "
        "blocks; on the training part alone. Differences are in points of test accuracy to the "
        "defaults of the template with the same views, paired by image, with a 95 % interval over "
        "seeds and test images (with one seed: images alone). Seconds and memory are those of the "
        "technique, as a multiple of the same base; of one seed they are not shown.",
        machines(found),
    ]
    for data in dict.fromkeys(row["data"] for row in found):
        own: dict[str, dict[int, dict[str, Any]]] = {}
        for row in found:
            if row["data"] == data:
                own.setdefault(row["technique"], {})[row["seed"]] = row
        parts += [f"## {data}", bases(own), table(HEADER, compared(own))]
    return "\n\n".join(parts)


def machines(found: list[dict[str, Any]]) -> str:
    """Says which trainings are of which machine."""
    lines = []
    for name in dict.fromkeys(map(origin, found)):
        own: dict[str, list[str]] = {}
        for row in found:
            if origin(row) == name:
                own.setdefault(f"{row['data']}, {row['technique']}", []).append(str(row["seed"]))
        told = (f"{what} (seed {', '.join(sorted(seeds))})" for what, seeds in own.items())
        lines.append(f"- {name}: {'; '.join(told)}")
    several = " A difference is only between trainings of one machine." if len(lines) > 1 else ""
    return "\n".join([f"Where it was measured.{several}\n", *lines])


HEADER = ["technique", "seeds", "test", "difference", "NLL", "ECE", "CPU s", "memory"]


def bases(own: dict[str, dict[int, dict[str, Any]]]) -> str:
    """What the bases reach."""
    lines = []
    for name in (BASE, FRESH):
        runs = list(own.get(name, {}).values())
        if runs:
            accuracy = mean(runs, "test")
            seconds = min(run["cpu_seconds"] for run in of_one_machine(runs))
            lines.append(
                f"- {name}: {accuracy:.1%} ({len(runs)} seeds), NLL {mean(runs, 'nll'):.3f}, "
                f"ECE {mean(runs, 'ece'):.3f}, {seconds:.0f} CPU s"
            )
    return "\n".join(lines)


def compared(own: dict[str, dict[int, dict[str, Any]]]) -> list[list[Any]]:
    """A row a technique, by its difference to its base."""
    from gsfl_tune.evidence.interval import difference

    found = []
    for name in (*CACHED, *IMAGES):
        base = own.get(FRESH if name in IMAGES else BASE, {})
        seeds = [
            seed
            for seed in sorted(own.get(name, {}).keys() & base.keys())
            if origin(own[name][seed]) == origin(base[seed])
        ]
        if not seeds:
            continue
        ours, theirs = ([each[seed] for seed in seeds] for each in (own[name], base))
        gap = difference(*(np.stack([right(run) for run in runs]) for runs in (ours, theirs)))
        points = [100 * value for value in (gap.mean, gap.interval.low, gap.interval.high)]
        timed = of_one_machine(ours), of_one_machine(theirs)
        ratios = [
            min(run[key] for run in timed[0]) / min(run[key] for run in timed[1])
            for key in ("cpu_seconds", "peak_mb")
        ]
        row = [name, len(seeds), f"{mean(ours, 'test'):.1%}"]
        row.append("{:+.1f} ({:+.1f} to {:+.1f})".format(*points))
        row += [f"{mean(ours, key) - mean(theirs, key):+.3f}" for key in ("nll", "ece")]
        # The first training of a base builds caches.
        row += [f"{ratio:.2f}" if len(timed[0]) > 1 else "" for ratio in ratios]
        found.append((gap.mean, row))
    return [row for _, row in sorted(found, key=lambda pair: -pair[0])]


def origin(run: dict[str, Any]) -> str:
    """Returns the machine of a training, with its versions."""
    return str(run.get("machine", UNKNOWN))


def of_one_machine(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keeps the trainings of the machine that has most of them: seconds of others are others."""
    counts = Counter(map(origin, runs))
    most = counts.most_common(1)[0][0]
    return [run for run in runs if origin(run) == most]


def mean(runs: list[dict[str, Any]], key: str) -> float:
    return float(np.mean([run[key] for run in runs]))


def right(run: dict[str, Any]) -> np.ndarray:
    """(N,) whether it is right, image by image."""
    bits = np.frombuffer(bytes.fromhex(run["right"]), dtype=np.uint8)
    return np.unpackbits(bits)[: run["test_images"]]


if __name__ == "__main__":
    main()
