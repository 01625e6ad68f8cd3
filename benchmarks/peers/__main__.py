"""The whole way in a given time: this project, a plain fine-tuning script, fastai's `fine_tune`.

All sides have the same images (the official parts of clothing and grocery), the same ImageNet
weights (EfficientNet-Lite0, 224 px), the same cores and the same wall clock, from the files to
test accuracies. Ours searches, races its finalists, retrains the winner and a control, and writes
its evidence in that time; the others train one model with a recipe that somebody has chosen before.
Ours counts with the bundle's test accuracy, the first seed. The template's defaults were chosen
with a look at the same test images (``recipes.py``), the script's recipe was not.

Sides take turns, seed by seed; nothing else may run. fastai is installed by the user:
``pip install fastai``. Runs that are finished are rows of ``benchmarks/results/NAME.jsonl``, and
are not run again; ``--page`` writes the page of those that are there.

    python -m benchmarks.peers --minutes 12             # three and a half hours on two cores
    python -m benchmarks.peers --minutes 40 --sides ours
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1]
RESULTS = BENCHMARKS / "results"
sys.path.insert(0, str(BENCHMARKS))

import numpy as np  # noqa: E402
from _photos import parquet_files, write_folder  # noqa: E402
from _report import publish, table  # noqa: E402

SIDES = ("ours", "script", "fastai")
DATA = ("grocery", "clothing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--keep", type=Path, default=Path("runs/peers"), help="folder of the runs")
    parser.add_argument("--name", default="peers", help="of the page in benchmarks/results")
    parser.add_argument("--note", default="", help="what else ran on the machine, for its row")
    parser.add_argument("--page", action="store_true", help="write the page, run nothing")
    args = parser.parse_args()
    rows = RESULTS / f"{args.name}.jsonl"
    if args.page:
        publish(args.name, "The whole way in a given time", pages(read_rows(rows)))
        return
    if "fastai" in args.sides and find_spec("fastai") is None:
        raise SystemExit("pip install fastai, or leave it out: --sides ours script")
    for seed in range(args.seeds):
        for data in args.data:
            for side in args.sides:
                key = {"minutes": args.minutes, "data": data, "seed": seed, "side": side}
                if any(key.items() <= row.items() for row in read_rows(rows)):
                    continue
                row = key | run(side, data, seed, args)
                print(row, flush=True)
                with rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                publish(args.name, "The whole way in a given time", pages(read_rows(rows)))


def read_rows(file: Path) -> list[dict[str, Any]]:
    """All runs that are finished."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def run(side: str, data: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One side on one data set with one seed."""
    folder = args.keep / f"{args.minutes:g}m"
    folder.mkdir(parents=True, exist_ok=True)
    photos = write_folder(data, args.keep / "photos")
    started = time.perf_counter()
    if side == "ours":
        found = ours(data, seed, args.minutes, folder / f"ours-{data}-{seed}")
    else:
        name = {"script": "script", "fastai": "fastai_tune"}[side]
        command = [sys.executable, str(BENCHMARKS / "peers" / f"{name}.py"), str(photos)]
        command += [str(60 * args.minutes), str(seed)]
        paths = [str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
        found = json.loads(done.stdout.strip().splitlines()[-1])
    found |= {"wall": time.perf_counter() - started}
    return found | ({"note": args.note} if args.note else {})


def ours(data: str, seed: int, minutes: float, directory: Path) -> dict[str, Any]:
    """The command of a user on an empty cache."""
    paths = json.dumps([str(path) for path in parquet_files(data).values()])
    command = [
        sys.executable, "-m", "gsfl_tune", "search",
        str(BENCHMARKS.parent / "search_spaces" / "image_folder.yaml"),
        "--time", f"{60 * minutes:.0f}s", "--run-dir", str(directory),
        "--set", "data.source=parquet", "--set", f"data.path={paths}",
        "--set", "model.weights=package", "--set", "model.backbone=tf_efficientnet_lite0",
        "--set", f"search.seed={seed}", "--set", f"training.seed={100 * seed}",
    ]  # fmt: skip
    cache = directory.parent / f"{directory.name}-cache"
    with (directory.parent / f"{directory.name}.log").open("w") as log:
        environment = os.environ | {"GSFL_TUNE_CACHE": str(cache)}
        subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)
    subprocess.run(["rm", "-rf", str(cache)], check=True)
    results = json.loads((directory / "results.json").read_text())
    winner, control = results["winner"], results["control"]
    return {
        "accuracy": winner["test"]["accuracy"]["values"][0],
        "mean": winner["test"]["accuracy"]["mean"],
        "control": control["test"]["accuracy"]["mean"] if control else None,
        "probe": results["probe"]["test"]["accuracy"]["mean"],
        "seconds": results["cost"]["seconds"]["total"],
        "trials": results["trials"],
        "epochs": winner["config"]["training"]["finetune"]["epochs"],
    }


def pages(rows: list[dict[str, Any]]) -> str:
    """A section for each length of time."""
    parts = []
    for minutes in sorted({row["minutes"] for row in rows}):
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in rows:
            if row["minutes"] == minutes:
                found.setdefault((row["data"], row["side"]), []).append(row)
        parts.append(f"## {minutes:g} minutes\n\n" + page(found))
    return "\n\n".join(parts)


def page(found: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """The table, and paired differences over seeds."""
    rows = []
    for (data, side), runs in found.items():
        values = [run["accuracy"] for run in runs]
        rows.append(
            [
                data,
                side,
                f"{statistics.mean(values):.1%}{interval(values)}",
                ", ".join(f"{value:.1%}" for value in values),
                ", ".join(f"{run['wall'] / 60:.1f}" for run in runs),
                f"{statistics.mean(run['epochs'] for run in runs):.1f}",
            ]
        )
    header = ["data", "side", "test accuracy: mean", "by seed", "minutes", "epochs of the model"]
    parts = [
        "From the files to the tested model, EfficientNet-Lite0 at 224 px; ± is half of a 95 % "
        "interval over seeds. The template's defaults were chosen with a look at these test "
        "images.",
        table(header, rows),
    ]
    for data in dict.fromkeys(data for data, _ in found):
        for side in ("script", "fastai"):
            mine = {run["seed"]: run["accuracy"] for run in found.get((data, "ours"), [])}
            theirs = {run["seed"]: run["accuracy"] for run in found.get((data, side), [])}
            gaps = [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]
            if gaps:
                parts.append(
                    f"- {data}, ours minus {side}: {100 * statistics.mean(gaps):+.1f} points"
                    f"{interval(gaps, points=True)}, {len(gaps)} seed{'s' * (len(gaps) > 1)}"
                )
    notes = dict.fromkeys(run["note"] for runs in found.values() for run in runs if "note" in run)
    return "\n\n".join([*parts, *(f"Note: {note}" for note in notes)])


def interval(values: list[float], *, points: bool = False) -> str:
    """A 95 % interval of the mean over seeds, by Student's t."""
    if len(values) < 2:
        return ""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f" ± {100 * half:.1f}" + ("" if points else " points")


if __name__ == "__main__":
    main()
