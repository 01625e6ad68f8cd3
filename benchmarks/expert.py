"""Time to a good model: an expert's Optuna loop against `gsfl-tune search`, on cached features.

The expert (`expert_loop.py`) is one process: features computed once by hand, TPE, Hyperband
pruning (1 epoch to all, factor 3), torch's default threads. Ours (`expert_search.py`) is what
``gsfl-tune search`` runs: Ray, one process with one thread a core, our defaults. Space, model,
epochs, batch size, training seed, data split and features are the same (the script compares the
spaces), and both caches are warm.

The expert's loop runs its trials and ends with an accuracy: the best value of its complete
trials. Then ours gets the same number of seconds, and the question is when its best complete
trial is as good. Both clocks start with the first epoch of the first trial; what comes before
(imports, the start of Ray and its workers) is in columns of their own. If ours does not get there,
the whole of its time counts and the seed is a miss. Also shown: what ours has after as many
*trials* as the expert, and how much of the time its processes trained.

The default and the published configuration are among the first trials of ours and not of the
expert's; ``--expert-defaults`` runs a second expert that tries the default first, to tell the
worth of good defaults from the worth of the machinery.

    python benchmarks/expert.py                     # 10 seeds: about 25 minutes on two cores
    python benchmarks/expert.py --expert-defaults   # half as long again
    python benchmarks/expert.py --data typefaces    # no files needed; clothing, omniglot
    python benchmarks/expert.py --quick             # a smoke run: a minute
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _report import publish, spread, table
from glue_space import DATA_SETS, data_section, experiment, real_data
from optuna.distributions import distribution_to_json

from gsfl_tune.experiment import Experiment
from gsfl_tune.search.samplers.factory import whole_space
from gsfl_tune.training import Workspace
from gsfl_tune.training.fit_groups import fit_groups

HERE = Path(__file__).parent
# More than any search gets to in its time.
ENDLESS = 10_000


@dataclass(frozen=True)
class Side:
    """What one process did.

    Attributes:
        startup: Seconds from the start of the process to the first epoch.
        seconds: From there to its last trial's end.
        best: (seconds, accuracy) at every complete trial that was better than all before.
        ends: Seconds at which trials ended, ascending.
        busy: Share of the time in which its workers trained.
        epochs: Epochs trained.
        any_epoch: Best accuracy of any epoch of any trial.
        record: Everything else.
    """

    startup: float
    seconds: float
    best: list[tuple[float, float]]
    ends: list[float]
    busy: float
    epochs: int
    any_epoch: float
    record: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Side:
        record = json.loads(path.read_text())
        best: list[tuple[float, float]] = []
        for trial in record["trials"]:
            if trial["state"] == "COMPLETE" and (not best or trial["value"] > best[-1][1]):
                best.append((trial["end"], trial["value"]))
        return cls(
            startup=record["startup"],
            seconds=record["seconds"],
            best=best,
            ends=[trial["end"] for trial in record["trials"]],
            busy=record["busy"],
            epochs=record["epochs"],
            any_epoch=record["any_epoch"],
            record=record,
        )

    def accuracy(self, seconds: float = float("inf")) -> float:
        """Best accuracy of the trials that were complete by then."""
        return max((value for at, value in self.best if at <= seconds), default=0.0)

    def time_to(self, accuracy: float) -> float | None:
        """Seconds until a complete trial had it."""
        return next((at for at, value in self.best if value >= accuracy), None)


def run(script: str, *arguments: object) -> None:
    """Runs one side in a process of its own, without what this shell says about threads."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS",)}
    command = [sys.executable, HERE / script, *arguments, "--spawned", time.time()]
    subprocess.run([str(word) for word in command], check=True, env=environment)


def prepare(space: Experiment, file: Path) -> Experiment:
    """Warms our cache and writes the expert's tensor; returns the space fitted to the data."""
    config = space.defaults()
    workspace = Workspace.open(config.data)
    features = workspace.features(config)
    fitted = fit_groups(space, workspace)
    dataset = workspace.dataset
    low, high = fitted.bounds("model.groups.count")
    assert low == 1
    for count in range(1, int(high) + 1):
        workspace.groups(fitted.fixed({"model.groups.count": count}).defaults())
    torch.save(
        {
            "features": features.clone(),
            "labels": torch.from_numpy(dataset.pool.labels.copy()).long(),
            "train": torch.from_numpy(dataset.train_index.copy()),
            "validation": torch.from_numpy(dataset.validation_index.copy()),
            "most_groups": int(high),
        },
        file,
    )
    return fitted


def same_space(ours: Experiment, theirs: dict[str, str]) -> None:
    """Fails if the two sides do not draw from the same ranges."""
    mine = {
        name.rpartition(".")[2]: distribution_to_json(distribution)
        for name, distribution in whole_space(ours.space).items()
    }
    if mine != theirs:
        raise SystemExit(f"the spaces differ:\n  ours {mine}\n  expert {theirs}")


def report(experts: list[Side], ours: list[Side], trials: int) -> str:
    """Per seed, and medians."""
    rows = []
    ratios: list[float] = []
    whole: list[float] = []
    misses = 0
    for seed, (expert, our) in enumerate(zip(experts, ours, strict=True)):
        target = expert.accuracy()
        theirs = expert.time_to(target)
        assert theirs is not None
        reached = our.time_to(target)
        # What ours was left to run beyond the expert's time does not help it.
        if reached is not None and reached > expert.seconds:
            reached = None
        misses += reached is None
        counted = expert.seconds if reached is None else reached
        ratios.append(counted / theirs)
        whole.append(counted / expert.seconds)
        same = our.ends[trials - 1] if len(our.ends) >= trials else None
        rows.append(
            [
                seed,
                f"{target:.4f}",
                f"{theirs:.1f}",
                f"{expert.seconds:.1f}",
                "miss" if reached is None else f"{reached:.1f}",
                f"{ratios[-1]:.2f}",
                f"{whole[-1]:.2f}",
                f"{our.accuracy(expert.seconds):.4f}",
                "-" if same is None else f"{our.accuracy(same):.4f} ({same:.1f} s)",
                sum(end <= expert.seconds for end in our.ends),
            ]
        )
    header = [
        "seed", "expert ends with", "gets there after s", "its loop takes s",
        "ours gets there after s", "ratio", "of the loop", "ours in the loop's time",
        f"ours after {trials} trials", "our trials in the loop's time",
    ]  # fmt: skip
    ends = [e.accuracy() for e in experts]
    same_time = [o.accuracy(e.seconds) for e, o in zip(experts, ours, strict=True)]
    lines = [
        table(header, rows),
        "",
        f"Median ratio of the times to the expert's last accuracy: **{spread(ratios, '.2f')}**; "
        f"against the whole loop: **{spread(whole, '.2f')}** (target: 0.5). "
        f"Misses: {misses} of {len(ours)}.",
        "",
        f"Validation accuracy at the end of the expert's time: expert {spread(ends, '.4f')}, "
        f"ours {spread(same_time, '.4f')}; ours is better in "
        f"{sum(a > b for a, b in zip(same_time, ends, strict=True))}, equal in "
        f"{sum(a == b for a, b in zip(same_time, ends, strict=True))} of {len(ends)} seeds.",
    ]
    return "\n".join(lines)


def workers(name: str, sides: list[Side]) -> list[str]:
    """A row of the table of what the processes did."""
    return [
        name,
        spread([side.startup for side in sides]),
        spread([side.epochs / side.seconds for side in sides]),
        f"{100 * statistics.median(side.busy for side in sides):.0f} %",
        spread([len(side.ends) / side.seconds * 60 for side in sides], ".0f"),
        spread([side.any_epoch for side in sides], ".4f"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", choices=DATA_SETS, default="clothing" if real_data() else "typefaces"
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, help="of the expert (default: 30; typefaces 100)")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--expert-defaults", action="store_true", help="a second expert")
    parser.add_argument("--quick", action="store_true", help="a smoke run; nothing is saved")
    parser.add_argument("--keep", type=Path, help="leave records and run directories here")
    args = parser.parse_args()
    trials = args.trials or (100 if args.data == "typefaces" else 30)
    data = data_section(args.data)
    if args.quick:
        data = {"source": "typefaces", "image_size": 64, "typefaces": {"train": 8, "test": 2}}
        args.data, args.seeds, trials, args.epochs = "small typefaces", 1, 4, 4
    sides: dict[str, list[Side]] = {"expert": [], "ours": []}
    if args.expert_defaults:
        sides["expert with our defaults"] = []
    with tempfile.TemporaryDirectory(prefix="expert-") as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        features = folder / "features.pt"
        space = experiment("expert", data, epochs=args.epochs, trials=ENDLESS, control="off")
        fitted = prepare(space, features)
        defaults = {
            name.rpartition(".")[2]: value for name, value in fitted.default_params().items()
        }
        for seed in range(args.seeds):
            common = ["--features", features, "--trials", trials, "--epochs", args.epochs]
            for name in [side for side in sides if side != "ours"]:
                out = folder / f"{name.replace(' ', '-')}-{seed}.json"
                first = ["--enqueue", json.dumps(defaults)] if "defaults" in name else []
                run("expert_loop.py", *common, "--seed", seed, "--out", out, *first)
                sides[name].append(Side.read(out))
            same_space(fitted, sides["expert"][-1].record["distributions"])
            file = folder / f"ours-{seed}.yaml"
            file.write_text(space.fixed({"search.seed": seed}).to_yaml())
            out = folder / f"ours-{seed}.json"
            longest = max(runs[-1].seconds for name, runs in sides.items() if name != "ours")
            limits = ["--trials", trials, "--seconds", longest]
            where = ["--experiment", file, "--run-dir", folder / f"run-{seed}", "--out", out]
            run("expert_search.py", *where, *limits)
            sides["ours"].append(Side.read(out))
            print(
                f"seed {seed}: "
                + ", ".join(
                    f"{name} {runs[-1].accuracy():.4f} in {runs[-1].seconds:.1f} s"
                    for name, runs in sides.items()
                ),
                file=sys.stderr,
                flush=True,
            )
    text = [
        f"Data: {args.data}; {trials} trials of the expert, up to {args.epochs} epochs.",
        "",
        report(sides["expert"], sides["ours"], trials),
    ]
    if args.expert_defaults:
        text += [
            "",
            "## Against an expert who tries our default configuration first",
            "",
            report(sides["expert with our defaults"], sides["ours"], trials),
        ]
    header = [
        "side", "s to the first epoch", "epochs/s", "workers training", "trials/min",
        "best accuracy of any epoch",
    ]  # fmt: skip
    text += ["", "## The processes", ""]
    text += [table(header, [workers(name, runs) for name, runs in sides.items()])]
    name = "expert" if args.data == parser.get_default("data") else f"expert-{args.data}"
    title = "An expert's Optuna loop on cached features, against gsfl-tune search"
    publish(name, title, "\n".join(text), save=not args.quick)


if __name__ == "__main__":
    main()
