"""How right the estimates are: of `check --measure` before a search, and of the time left in it.

Ten searches without a time budget, of typefaces and of real photographs, heads alone and with a
finetune stage, with what moves the time: stopped trials or none, a control or none, folds, several
finalists and seeds. Each begins with an empty cache: first `gsfl-tune check FILE --measure`, then
the search, in a pipe, with its recording (`benchmarks/forecast.py`). The page has what was
estimated beside what it took, and for how much of the time "about 4:10 left" was right. Nothing
else may run meanwhile. What was measured stays in ``results/estimates.jsonl``: a run does what is
missing there, and the page names it.

    python benchmarks/estimates.py                      # the first six took 23 minutes
    python benchmarks/estimates.py --only "typefaces: heads"
    python benchmarks/estimates.py --page
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from _photos import parquet_files
from _report import RESULTS, machine, publish, table
from forecast import replayed
from silence import listen

ROOT = Path(__file__).parents[1]
LOG = RESULTS / "estimates.jsonl"
# What "right" means: neither 1.5 times too long nor too short.
FACTOR = 1.5
TYPEFACES = "search_spaces/typefaces.yaml"
HEADS = "search_spaces/frozen_head.yaml"
IMAGES = "search_spaces/image_folder.yaml"
NO_BUDGET = {"search.time_budget": None}
STAGES = {"training.head.epochs": 8, "training.finetune.epochs": 4, **NO_BUDGET}
ONE = {"search.finalists": 1, "search.final_seeds": 1}
LITE0 = {"model.backbone": "tf_efficientnet_lite0"}

# Name, file, data set (None: what the file says), settings.
SEARCHES: tuple[tuple[str, str, str | None, Mapping[str, Any]], ...] = (
    ("typefaces: both stages", TYPEFACES, None, {**STAGES, "search.trials": 12, **ONE}),
    (
        "typefaces: both stages, none is stopped",
        TYPEFACES,
        None,
        {**STAGES, "search.trials": 5, "search.scheduler.name": "none", **ONE},
    ),
    (
        "typefaces: both stages, 2 finalists, 2 seeds",
        TYPEFACES,
        None,
        {**STAGES, "search.trials": 8, "search.finalists": 2, "search.final_seeds": 2},
    ),
    (
        "typefaces: heads, a control of its own",
        TYPEFACES,
        None,
        {
            **NO_BUDGET,
            "training.head.epochs": 20,
            "training.finetune.epochs": 0,
            "search.trials": 20,
            "search.control": "tuned",
            **ONE,
        },
    ),
    (
        "typefaces: heads, 3 folds",
        TYPEFACES,
        None,
        {
            **NO_BUDGET,
            "training.head.epochs": 15,
            "training.finetune.epochs": 0,
            "search.trials": 12,
            "search.folds": 3,
            **ONE,
        },
    ),
    ("clothing: heads", HEADS, "clothing", {**LITE0, "search.trials": 40, **ONE}),
    (
        "clothing: heads, no control, 3 seeds",
        HEADS,
        "clothing",
        {**LITE0, "search.trials": 20, "search.control": "off", "data.image_size": 128},
    ),
    (
        "clothing: both stages",
        IMAGES,
        "clothing",
        {
            **LITE0,
            **STAGES,
            "data.image_size": 112,
            "data.eval_image_size": 128,
            "data.views": 2,
            "search.trials": 6,
            **ONE,
        },
    ),
    ("grocery: heads", HEADS, "grocery", {**LITE0, "search.trials": 20, "data.image_size": 160}),
    (
        "grocery: both stages",
        IMAGES,
        "grocery",
        {
            **LITE0,
            **STAGES,
            "data.image_size": 96,
            "data.eval_image_size": 112,
            "data.views": 2,
            "search.trials": 4,
            **ONE,
        },
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, default=Path("runs/estimates"), metavar="DIR")
    parser.add_argument("--only", default="", help="searches with this text in their names")
    parser.add_argument("--page", action="store_true", help="search nothing")
    args = parser.parse_args()
    if not args.page:
        args.keep.mkdir(parents=True, exist_ok=True)
        known = {row["name"] for row in rows()}
        for name, file, data, settings in SEARCHES:
            if args.only in name and name not in known:
                row = searched(args.keep.resolve(), name, file, data, settings)
                with LOG.open("a") as log:
                    log.write(json.dumps(row) + "\n")
                print(row, flush=True)
    publish("estimates", "Estimates of searches", page(rows()))


def rows() -> list[dict[str, Any]]:
    """The searches that were measured."""
    if not LOG.exists():
        return []
    return [json.loads(line) for line in LOG.read_text().splitlines()]


def searched(
    keep: Path, name: str, file: str, data: str | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Estimates a search, runs it, and compares."""
    short = "".join(c if c.isalnum() else "-" for c in name)
    cache, run, recording = keep / "cache", keep / f"run-{short}", keep / f"{short}.json"
    shutil.rmtree(cache, ignore_errors=True)
    shutil.rmtree(run, ignore_errors=True)
    everything = dict(settings)
    if data is not None:
        paths = [str(path) for path in parquet_files(data).values()]
        everything |= {"data.source": "parquet", "data.path": paths, "data.label_column": "label"}
        everything["data.split.validation"] = "resplit"
    words = [f"{key}={json.dumps(value)}" for key, value in everything.items()]
    overrides = [part for word in words for part in ("--set", word)]
    environment = os.environ | {"GSFL_TUNE_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    busy = psutil.cpu_percent(3.0)
    check = [sys.executable, "-m", "gsfl_tune", "check", file, *overrides, "--measure", "--json"]
    said = subprocess.run(
        check, cwd=ROOT, env=environment, check=True, text=True, stdout=subprocess.PIPE
    )
    estimate = json.loads(said.stdout)["estimate"]
    script = [sys.executable, "benchmarks/forecast.py", "record", file, *overrides]
    heard = listen([*script, "--run-dir", str(run), "--out", str(recording)], "pipe", environment)
    if heard.code:
        raise SystemExit(f"{name}: exit code {heard.code}\n{heard.text[-2000:]}")
    heard.write(keep / f"{short}.log")
    told = replayed(json.loads(recording.read_text()))
    results = json.loads((run / "results.json").read_text())
    shutil.rmtree(run)
    return {
        "name": name,
        "estimated": estimate["seconds"],
        "parts": estimate["parts"],
        "took": round(heard.seconds, 1),
        "took_parts": results["cost"]["seconds"],
        "moments": len(told),
        "right": sum(each.good for each in told) / len(told),
        "right_of_trainings": sum(each.good_of_trainings for each in told) / len(told),
        "busy": busy,
        "machine": machine(),
    }


def page(found: list[dict[str, Any]]) -> str:
    """The table, and how many are right."""
    if not found:
        return "Nothing was measured yet."
    cells = []
    for row in found:
        ratio = row["estimated"] / row["took"]
        cells.append(
            [
                row["name"],
                f"{row['estimated']:.0f}",
                f"{row['took']:.0f}",
                f"{ratio:.2f}",
                f"{100 * row['right']:.0f}",
                f"{100 * row['right_of_trainings']:.0f}",
                f"{row['busy']:.0f}",
            ]
        )
    within = sum(1 / FACTOR <= row["estimated"] / row["took"] <= FACTOR for row in found)
    left = sum(row["right"] >= 0.8 for row in found)
    head = [
        *(
            "search",
            "`check --measure`, s",
            "it took, s",
            "ratio",
            "time left right, % of the time",
        ),
        *("without evidence and export", "busy before, %"),
    ]
    starts = " or ".join(sorted({f"{row['parts']['start']:.0f}" for row in found}))
    known = {row["name"] for row in found}
    lacking = [name for name, *_ in SEARCHES if name not in known]
    missing = f" Not yet: {'; '.join(lacking)}." if lacking else ""
    return (
        f"{len(found)} of {len(SEARCHES)} searches were measured.{missing} "
        f"{within} of {len(found)} estimates of `check --measure` are within a factor of {FACTOR}; "
        f"in {left} of {len(found)} searches what was said of the time left was within it for 80 % "
        f"of the time and more.\n\nFrom the command to its exit, with an empty cache; a start "
        f"counts with {starts} seconds in these estimates; "
        f"*busy*: share of the cores that others used just before. The fixed part of the price of "
        f"the evidence was set with the first five and `clothing: heads`. The estimate of the row "
        f"with three seeds counted a race of finalists with all of their seeds, and the time left "
        f"of `grocery: heads` only with the seeds that were being trained; both were mended after "
        f"that.\n\n{table(head, cells)}"
    )


if __name__ == "__main__":
    main()
