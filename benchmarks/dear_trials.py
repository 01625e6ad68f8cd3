"""A search in which one trial costs as much as thirty: this version against an older one.

Clothing and grocery as one data set of 91 classes (6,345 training images, a fifth of them for
validation; CUB-200-2011 has 5,994), features of a frozen EfficientNet-Lite0, the head alone, a
latent size of up to 4,096: the published setting, which is never stopped, costs some thirty times
the defaults there. 24 trials, three finalists, three seeds, a matched control. Both sides run the
same command on caches of their own; the time is that of the whole command.

    git worktree add ../old 2f1b184
    python benchmarks/dear_trials.py --old ../old            # about an hour on two cores

With `--most 5` the older version is stopped after five times the time of this one, which is what
the target asks; its row then says that it had not ended. `--only` runs one side and keeps what it
found in `--keep`; a side that is kept there is not run again. Ctrl-C interrupts the search; started
again, this script resumes it and adds up the time of both parts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from _photos import PARTS, class_names, parquet_files
from _report import publish, table

ROOT = Path(__file__).parents[1]
SPACE = """
name: dear
data: {source: parquet, path: PATH, image_size: 224}
model:
  backbone: tf_efficientnet_lite0
  weights: package
  dropout: {float: [0, 0.7], default: 0.28}
  latent_dim: {int: [128, 4096], log: true, default: 512}
  feature_scale: {float: [1, 64], log: true, default: 11.8}
  groups: {count: {int: [1, 20], default: 16}}
loss:
  reconstruction: {float: [1e-6, 10], log: true, default: 0.17}
  class_center: {float: [1e-5, 1], log: true, default: 0.005}
  shared_center: {float: [1e-5, 1], log: true, default: 0.075}
  center_rate: {float: [1e-3, 0.5], log: true, default: 0.21}
  label_smoothing: {float: [0, 0.2], default: 0.1}
training:
  head:
    epochs: 30
    learning_rate: {float: [1e-4, 1e-2], log: true}
    weight_decay: {float: [1e-5, 1e-1], log: true}
search: {trials: 24, seed: SEED, resources: {cpu: 1, gpu: 0}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", type=Path, help="checkout of the older version")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("runs/dear"))
    parser.add_argument("--most", type=float, help="of the time of this version, for the older one")
    parser.add_argument("--only", choices=["now", "before"], help="this side, without a page")
    args = parser.parse_args()
    args.keep.mkdir(parents=True, exist_ok=True)
    data = args.keep.resolve() / "data"
    if not data.exists():
        join(data)
    found = {}
    if args.only != "before":
        found["now"] = kept("now", ROOT, data, args)
    if args.old and args.only != "now":
        most = None if args.most is None else args.most * found["now"]["seconds"]
        found["before"] = kept("before", args.old.resolve(), data, args, most)
    if args.only is None:
        publish("dear_trials", "A search with one dear trial", page(found))


def kept(
    name: str, root: Path, data: Path, args: argparse.Namespace, most: float | None = None
) -> dict[str, Any]:
    """What one side found, from its file where it has run before."""
    file = args.keep / f"{name}-{args.seed}.json"
    if not file.exists():
        file.write_text(json.dumps(run(name, root, data, args, most)))
    side: dict[str, Any] = json.loads(file.read_text())
    return side


def join(folder: Path) -> None:
    """Writes both data sets as one, by part."""
    names: list[str] = []
    tables: dict[str, list[pa.Table]] = {part: [] for part in PARTS}
    for name in ("clothing", "grocery"):
        files = parquet_files(name)
        offset = len(names)
        names += [f"{name} {each}" for each in class_names(files["train"])]
        for part, file in files.items():
            rows = pq.read_table(file, columns=["image", "label"])
            labels = pa.array([label + offset for label in rows["label"].to_pylist()], pa.int64())
            rows = rows.set_column(1, "label", labels).replace_schema_metadata(None)
            tables[part].append(rows)
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    part_folder = folder.with_name("data.part")
    part_folder.mkdir(exist_ok=True)
    # The older version refuses a validation part that lacks classes: both choose one themselves.
    tables["train"] += tables.pop("validation")
    for part, rows in tables.items():
        whole = pa.concat_tables(rows, promote_options="permissive")
        pq.write_table(whole.replace_schema_metadata(metadata), part_folder / f"{part}.parquet")
    part_folder.rename(folder)


def run(
    name: str, root: Path, data: Path, args: argparse.Namespace, most: float | None = None
) -> dict[str, Any]:
    """The command of a user with one version, on empty caches; `most` seconds of it.

    A search that was interrupted is resumed; its seconds are those of all parts.
    """
    part = args.keep / f"{name}-{args.seed}.part.json"
    before = json.loads(part.read_text())["seconds"] if part.exists() else 0.0
    space = args.keep / f"{name}.yaml"
    text = SPACE.replace("PATH", json.dumps(str(data))).replace("SEED", str(args.seed))
    space.write_text(text)
    directory, cache = args.keep / f"{name}-{args.seed}", args.keep / f"{name}-cache"
    if not before:
        for folder in (directory, cache):
            shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "gsfl_tune", "search", str(space.resolve())]
    command += ["--run-dir", str(directory.resolve()), *(["--resume"] if before else [])]
    environment = os.environ | {"PYTHONPATH": str(root), "GSFL_TUNE_CACHE": str(cache.resolve())}
    started = time.perf_counter()
    with (args.keep / f"{name}.log").open("a" if before else "w") as log:
        search = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log)
        try:
            code = search.wait(most)
        except subprocess.TimeoutExpired:
            search.send_signal(signal.SIGINT)
            search.wait()
            return {"seconds": most, "results": None}
        except KeyboardInterrupt:
            code = search.wait()  # Ctrl-C reaches the search too
    seconds = before + time.perf_counter() - started
    if code == 3:
        part.write_text(json.dumps({"seconds": seconds}))
        raise SystemExit(f"{name}: interrupted after {seconds:.0f} s; start again to go on")
    if code:
        raise SystemExit(f"{name}: the search ended with {code}, see {args.keep / name}.log")
    part.unlink(missing_ok=True)
    results = json.loads((directory / "results.json").read_text())
    return {"seconds": seconds, "results": results}


def page(found: dict[str, dict[str, Any]]) -> str:
    """The table."""
    rows = []
    for name, side in found.items():
        results = side["results"]
        if results is None:
            rows.append([name, f"more than {side['seconds'] / 60:.1f}", *["not ended"] * 5])
            continue
        phases = results["cost"]["seconds"]
        winner = results["winner"]
        accuracy = winner["test"]["accuracy"]
        rows.append(
            [
                name,
                f"{side['seconds'] / 60:.1f}",
                f"{phases['search'] / 60:.1f}",
                f"{phases['retraining'] / 60:.1f}",
                f"{accuracy['mean']:.2%} ± {accuracy['std']:.2%}",
                winner["params"].get("model.latent_dim"),
                ", ".join(f"{state} {count}" for state, count in results["trials"].items()),
            ]
        )
    header = ["version", "minutes", "search", "finals", "test accuracy", "latent_dim", "trials"]
    text = table(header, rows)
    if "before" in found:
        ratio = found["now"]["seconds"] / found["before"]["seconds"]
        less = "less than " if found["before"]["results"] is None else ""
        text += f"\n\n- now / before: {less}{ratio:.2f} of the wall clock (target: at most 0.20)"
    return text


if __name__ == "__main__":
    main()
