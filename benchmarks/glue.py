"""A training script glued to Ray Tune, against `gsfl-tune search`: the same search, wall clock.

The script (`glue_script.py`) is what a competent user writes in an afternoon: a function
trainable, `OptunaSearch`, `ASHAScheduler`, images through `ImageFolder` and `DataLoader` and the
frozen backbone (channels_last, no_grad) every epoch. Ours is the command ``gsfl-tune search``
with an empty cache: decoding and feature extraction count. Both get the same folder of image
files with the same parts, space, model, epochs, trials, seeds, one core a trial and as many
trials at once, and cuts the same pixels out of them; both try the default configuration first. Not
the same: ours stops trials by its default rungs (5 epochs, then every doubling) and the script by
those that its author chose (3, 9 and 27; Ray's own default would be 1, 4 and 16); ours tries the
published setting second, and neither of the two is stopped early; the script's trials start in
processes of their own, as function trainables do; its shuffling draws from another generator.

Time is from the start of the process, imports and the start of Ray included, to the end of the
last trial. Ours then retrains a winner, tests it and exports it; the whole command is in a column
of its own (one finalist, one seed, no control).

One search of the script takes most of half an hour, so that its accuracy has few seeds.
``--accuracy`` compares accuracy alone: the script then computes the features once (it has no
augmentation, so that nothing else changes), keeps its processes, and its time is not reported.

    python benchmarks/glue.py              # about 28 minutes on two cores
    python benchmarks/glue.py --accuracy --seeds 10    # an hour
    python benchmarks/glue.py --data clothing --per-class 60   # photographs, as long
    python benchmarks/glue.py --quick      # a smoke run: two minutes
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from _report import publish, spread, table
from glue_space import DATA_SETS, data_section, experiment
from PIL import Image

from gsfl_tune.data.sources import create_source
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.run import EpochLog, RunDirectory, read_json
from gsfl_tune.search.study.journal import read_studies

HERE = Path(__file__).parent
# Every fifth training image validates where the data has no part for it.
VALIDATE_EVERY = 5
# Ours opens the test part at its end; the script never does.
TEST_PER_CLASS = 5


def write_folder(data: dict[str, Any], folder: Path, per_class: int | None) -> dict[str, int]:
    """Writes image files as ``folder/{train,val,test}/CLASS/NUMBER``.

    Args:
        data: Section ``data`` of the data set.
        folder: Where to.
        per_class: Most training and validation images of a class.

    Returns:
        Images of each part, and ``classes``.
    """
    with tempfile.TemporaryDirectory() as cache:
        source = create_source(DataConfig.model_validate(data), Path(cache))
        given = any(sample.part == "validation" for sample in source.samples)
        seen: Counter[tuple[str, int]] = Counter()
        counts: Counter[str] = Counter()
        for position, reader in source.readers(range(len(source.samples))):
            sample = source.samples[position]
            part = {"validation": "val", "test": "test"}.get(sample.part or "train", "train")
            number = seen[part, sample.label]
            seen[part, sample.label] += 1
            if part == "train" and not given and number % VALIDATE_EVERY == VALIDATE_EVERY - 1:
                part = "val"
            limit = TEST_PER_CLASS if part == "test" else per_class
            if limit is not None and number >= limit:
                continue
            content = reader()
            path = folder / part / source.classes[sample.label].replace("/", "-")
            path.mkdir(parents=True, exist_ok=True)
            image = content if isinstance(content, Image.Image) else Image.open(io.BytesIO(content))
            if isinstance(content, bytes):
                suffix = {"JPEG": ".jpg"}.get(image.format or "", f".{image.format}".lower())
                (path / f"{number:05}{suffix}").write_bytes(content)
            else:
                image.save(path / f"{number:05}.jpg", quality=95)
            counts[part] += 1
        return {**counts, "classes": len(source.classes)}


def process(*words: object, cache: Path | None = None) -> tuple[float, float]:
    """Runs a command; returns the clock time of its start and its seconds."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    # Both sides start a Ray of their own, whatever else runs on this machine.
    environment["RAY_ADDRESS"] = "local"
    if cache is not None:
        environment["GSFL_TUNE_CACHE"] = str(cache)
    started = time.time()
    subprocess.run(
        [sys.executable, *map(str, words)], check=True, env=environment, stdout=sys.stderr
    )
    return started, time.time() - started


def glue(work: Path, seed: int, options: dict[str, Any], *flags: str) -> dict[str, Any]:
    """Runs the script."""
    out = work / f"glue-{seed}.json"
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    started, seconds = float("nan"), float("nan")
    if not out.exists():
        started, seconds = process(
            HERE / "glue_script.py", *words, *flags, "--seed", seed, "--out", out,
            "--storage", work / f"ray-{seed}",
        )  # fmt: skip
    record = json.loads(out.read_text())
    return {**record, "search": record["searched"] - started, "whole": seconds}


def ours(work: Path, seed: int, space: Experiment) -> dict[str, Any]:
    """Runs the command, with a cache of its own."""
    file, run_dir = work / f"ours-{seed}.yaml", work / f"run-{seed}"
    file.write_text(space.fixed({"search.seed": seed}).to_yaml())
    cache = work / f"cache-{seed}"
    run = RunDirectory(run_dir)
    started, seconds = float("nan"), float("nan")
    if not run.best.is_dir():
        words = ("-m", "gsfl_tune", "search", file, "--run-dir", run_dir)
        started, seconds = process(*words, cache=cache)
        shutil.rmtree(cache)
    trials = read_studies(run.journal)["search"]
    ends = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    complete = [trial.value or 0.0 for trial in trials if trial.state.name == "COMPLETE"]
    epochs = [
        len(EpochLog(run.trial("search", trial.number) / "epochs.jsonl").read()) for trial in trials
    ]
    return {
        "search": max(ends).timestamp() - started,
        "whole": seconds,
        "accuracy": max(complete),
        "epochs": sum(epochs),
        "trials": len(trials),
        "complete": len(complete),
        "errors": sum(trial.state.name == "FAIL" for trial in trials),
        "phases": read_json(run.manifest_file)["seconds"],
    }


def row(name: str, seed: int, side: dict[str, Any]) -> list[str]:
    return [
        name,
        str(seed),
        f"{side['search']:.1f}",
        f"{side['whole']:.1f}",
        f"{side['trials']}, {side['complete']}, {side['errors']}",
        str(side["epochs"]),
        f"{side['accuracy']:.4f}",
    ]


def mean_error(values: list[float]) -> str:
    """Mean with its standard error."""
    if len(values) < 2:
        return f"{values[0]:+.4f}"
    return f"{statistics.mean(values):+.4f} ± {statistics.stdev(values) / len(values) ** 0.5:.4f}"


def accuracy_page(data: str, sides: dict[str, list[dict[str, Any]]]) -> str:
    """Accuracy of both sides, seed by seed."""
    pairs = list(zip(sides["ours"], sides["glue"], strict=True))
    rows = [
        [str(seed), *(f"{side['accuracy']:.4f}" for side in pair),
         *(f"{side['complete']} of {side['trials']}, {side['epochs']}" for side in pair)]
        for seed, pair in enumerate(pairs)
    ]  # fmt: skip
    header = [
        "seed", "gsfl-tune search", "script on Ray Tune", "ours: complete trials, epochs",
        "script: complete trials, epochs",
    ]  # fmt: skip
    better = mean_error([ours["accuracy"] - theirs["accuracy"] for ours, theirs in pairs])
    return (
        f"{data} The script's features were computed once: its times are not comparable.\n\n"
        f"{table(header, rows)}\n\nAccuracy of the best trial on the validation images, ours - "
        f"script's: **{better}** (mean and its standard error; target: not lower)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=DATA_SETS, default="typefaces")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--per-class", type=int, help="most training images of a class")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1, help="searches of both sides")
    parser.add_argument("--quick", action="store_true", help="a smoke run; nothing is saved")
    parser.add_argument("--only", choices=("ours", "glue"), help="one side, nothing is saved")
    parser.add_argument("--accuracy", action="store_true", help="compare accuracy, not time")
    parser.add_argument("--keep", type=Path, help="leave runs here; those there have no times")
    args = parser.parse_args()
    if args.quick:
        args.data, args.per_class, args.trials, args.epochs = "typefaces", 10, 3, 4
    data = data_section(args.data, args.image_size)
    with tempfile.TemporaryDirectory(prefix="glue-") as temporary:
        work = (args.keep or Path(temporary)).absolute()
        folder = work / "images"
        shutil.rmtree(folder, ignore_errors=True)
        counts = write_folder(data, folder, args.per_class)
        ours_data = {"source": "folder", "path": str(folder), "image_size": args.image_size}
        space = experiment(
            "glue", ours_data, epochs=args.epochs, trials=args.trials,
            control="off", finalists=1, final_seeds=1,
        ).clamp("model.groups.count", max(1, counts["classes"] // 2))  # fmt: skip
        names = {"model.groups.count": "groups"}
        first = {
            names.get(name, name.rpartition(".")[2]): value
            for name, value in space.default_params().items()
        }
        options = {
            "folder": folder, "size": args.image_size, "trials": args.trials,
            "epochs": args.epochs, "most-groups": space.bounds("model.groups.count")[1],
            "first": json.dumps(first),
        }  # fmt: skip
        rows: list[list[str]] = []
        sides: dict[str, list[dict[str, Any]]] = {"ours": [], "glue": []}
        for seed in range(args.seeds):
            if args.only != "glue":
                sides["ours"].append(ours(work, seed, space))
                rows.append(row("gsfl-tune search", seed, sides["ours"][-1]))
            if args.only != "ours":
                flags = ["--remember"] if args.accuracy else []
                sides["glue"].append(glue(work, seed, options, *flags))
                rows.append(row("script on Ray Tune", seed, sides["glue"][-1]))
    header = [
        "side", "seed", "search, s", "whole command, s", "trials, complete, failed", "epochs",
        "validation accuracy of the best trial",
    ]  # fmt: skip
    about = (
        f"Data: {args.data} as image files, {counts['classes']} classes, {counts['train']} "
        f"training and {counts['val']} validation images, {args.image_size} px; {args.trials} "
        f"trials of up to {args.epochs} epochs."
    )
    name = "glue" if args.data == parser.get_default("data") else f"glue-{args.data}"
    if args.accuracy and args.only is None:
        title = "Accuracy of a training script glued to Ray Tune, and of gsfl-tune search"
        page = accuracy_page(about, sides)
        return publish(f"{name}-accuracy", title, page, save=not args.quick)
    text = [
        about,
        "",
        table(header, rows),
    ]
    if args.only is None:
        pairs = list(zip(sides["glue"], sides["ours"], strict=True))
        times = [theirs["search"] / our["search"] for theirs, our in pairs]
        whole = [theirs["whole"] / our["whole"] for theirs, our in pairs]
        better = [our["accuracy"] - theirs["accuracy"] for theirs, our in pairs]
        text += [
            "",
            f"The search is **{spread(times)} times** as fast (target: 25); the whole command, "
            f"with retraining, test and export on our side alone, {spread(whole)} times. "
            f"Accuracy of the winner: ours {statistics.median(better):+.4f} (target: not lower).",
        ]
    phases = [
        ", ".join(f"{name} {seconds:.1f}" for name, seconds in side["phases"].items())
        for side in sides["ours"]
    ]
    text += ["", *(f"Seconds of ours by phase, seed {i}: {p}." for i, p in enumerate(phases))]
    title = "A training script glued to Ray Tune, against gsfl-tune search"
    publish(name, title, "\n".join(text), save=not args.quick and args.only is None)


if __name__ == "__main__":
    main()
