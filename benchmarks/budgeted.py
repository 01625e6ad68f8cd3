"""Searches that are given a time: what they find, and how well the plan is kept.

`gsfl-tune search search_spaces/image_folder.yaml --time MINUTES` from the Parquet files of real
photographs to the tested bundle, with an empty cache, in a process of its own; nothing else may run
meanwhile. Every search adds a line to ``results/budgeted.jsonl``; the page shows all that are
there, each with the machine that it ran on.

    python benchmarks/budgeted.py --data grocery --minutes 40 --seed 1     # forty minutes
    python benchmarks/budgeted.py --page
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _photos import parquet_files
from _report import RESULTS, machine, publish, table

LOG = RESULTS / "budgeted.jsonl"
TEMPLATE = Path(__file__).parents[1] / "search_spaces" / "image_folder.yaml"
# Least test accuracy asked of 40 minutes on two cores, over three seeds.
BARS = {"grocery": 0.88, "clothing": 0.925}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=list(BARS), default="grocery")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the run directory stays")
    parser.add_argument("--page", action="store_true", help="search nothing")
    args = parser.parse_args()
    if not args.page:
        row = search(args.data, args.minutes, args.seed, args.keep)
        with LOG.open("a") as file:
            file.write(json.dumps(row) + "\n")
    publish("budgeted", "Searches that are given a time", page())


def search(data: str, minutes: float, seed: int, keep: Path | None) -> dict[str, Any]:
    """Runs one search, and says what came out."""
    with tempfile.TemporaryDirectory() as folder:
        run = keep or Path(folder) / "run"
        paths = json.dumps([str(path) for path in parquet_files(data).values()])
        command = [sys.executable, "-m", "gsfl_tune", "search", str(TEMPLATE)]
        command += ["--run-dir", str(run), "--time", f"{minutes:g}m"]
        settings = {
            "data.source": "parquet",
            "data.path": paths,
            "search.seed": seed,
            "training.seed": 100 * seed,
        }
        for path, value in settings.items():
            command += ["--set", f"{path}={value}"]
        environment = {**os.environ, "GSFL_TUNE_CACHE": str(Path(folder) / "cache")}
        started = time.perf_counter()
        subprocess.run(command, check=True, env=environment)
        seconds = time.perf_counter() - started
        row = described(run, data, minutes, seed, seconds)
        shutil.rmtree(Path(folder) / "cache", ignore_errors=True)
    return row


def described(run: Path, data: str, minutes: float, seed: int, seconds: float) -> dict[str, Any]:
    """What a finished run found, and what it was planned to take."""
    results = json.loads((run / "results.json").read_text())
    evidence = json.loads((run / "evidence.json").read_text())
    plan = json.loads((run / "plan.json").read_text())
    winner = results["winner"]
    models = {"winner": winner, "control": results["control"], "probe": results["probe"]}
    return {
        "data": data,
        "minutes": minutes,
        "seed": seed,
        "machine": machine(),
        "test": {
            name: model["test"]["accuracy"]["mean"] for name, model in models.items() if model
        },
        "interval": [winner["interval"]["low"], winner["interval"]["high"]],
        "ece": winner["test"]["ece"]["mean"],
        "ece_bundle": (winner["calibration"] or {}).get("after", {}).get("ece", {}).get("mean"),
        "seconds": round(seconds),
        "own_clock": results["cost"]["seconds"],
        "plan": plan,
        "trials": results["trials"],
        "finalists": len(results["finalists"]),
        "seeds": len(winner["seeds"]),
        "params": winner["params"],
        "confused": [
            [*pair["classes"], sum(pair["counts"])] for pair in evidence["most_confused"][:5]
        ],
    }


def page() -> str:
    """What was found, and how the plans were kept."""
    rows = [json.loads(line) for line in LOG.read_text().splitlines()]
    parts = []
    for data, minutes in dict.fromkeys((row["data"], row["minutes"]) for row in rows):
        own = [row for row in rows if (row["data"], row["minutes"]) == (data, minutes)]
        cells = [
            [
                row["seed"],
                "{:.1%} ({:.1%} to {:.1%})".format(row["test"]["winner"], *row["interval"]),
                f"{row['test']['control']:.1%}",
                f"{row['test']['probe']:.1%}",
                f"{row['ece']:.3f} / {row['ece_bundle']:.3f}",
                f"{row['own_clock']['total'] / 60:.1f} ({row['seconds'] / 60:.1f}) min",
                f"{row['own_clock']['total'] / row['plan']['budget'] - 1:+.0%}",
                f"{row['trials']['COMPLETE']} of {sum(row['trials'].values())}",
                f"{row['finalists']} / {row['seeds']}",
            ]
            for row in own
        ]
        header = ["seed", "winner, test", "control", "probe", "ECE, bundle's", "took (with start)"]
        header += ["of the plan", "trials to their end", "finalists / seeds"]
        text = f"## {data}, {minutes:g} minutes\n\n" + table(header, cells)
        mean = np.mean([row["test"]["winner"] for row in own])
        if minutes == 40:
            text += f"\n\nMean {mean:.1%} of {len(own)} searches; asked of three: {BARS[data]:.1%}."
        confused = [f"{a} / {b} {n}" for a, b, n in own[0]["confused"]]
        text += f"\n\nMost confused (seed {own[0]['seed']}): {'; '.join(confused)}."
        for row in own:
            if row.get("note"):
                text += f"\n\nSeed {row['seed']}: {row['note']}."
        text += f"\n\nOn {', '.join(dict.fromkeys(row['machine'] for row in own))}."
        parts.append(text)
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
