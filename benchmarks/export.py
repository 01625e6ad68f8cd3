"""The winner of a search in every format and precision: accuracy, size, latency.

A short search on clothing photographs (in ``GSFL_TUNE_REAL_DATA``), then every export that
`gsfl-tune export` knows. Training after pruning and with int8's rounding goes through the whole
network, on a GPU if there is one; everything is measured on the CPU.

    GSFL_TUNE_REAL_DATA=DIR python benchmarks/export.py       # about half an hour on two cores
    python benchmarks/export.py --run RUN                     # another finished run
    python benchmarks/export.py --run RUN --quick             # a smoke run: no pruning, no fp16
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from _report import publish, table

from gsfl_tune.experiment import Experiment
from gsfl_tune.export import Options, export_run, load_bundle
from gsfl_tune.export.measure import HEADER, Measurement, cells, legend

TEXT = """
name: clothing
data: {source: parquet, path: PATH, image_size: 224}
model:
  backbone: tf_efficientnet_lite0
  weights: package
  latent_dim: {int: [128, 1024], log: true, default: 512}
  dropout: {float: [0, 0.7], default: 0.28}
  groups: {count: {int: [1, 5], default: 3}}
training:
  head:
    epochs: 20
    learning_rate: {float: [1e-4, 1e-2], log: true}
search: {trials: 10, control: off, finalists: 1, final_seeds: 1, resources: {cpu: 1, gpu: 0}}
"""

EXPORTS: list[dict[str, Any]] = [
    {"format": "safetensors", "precision": "fp16"},
    {"format": "onnx"},
    {"format": "onnx", "precision": "fp16"},
    {"format": "onnx", "precision": "int8"},
    {"format": "torch-export"},
    {"format": "torch-export", "precision": "fp16"},
    {"format": "torch-export", "precision": "int8"},
    {"format": "onnx", "precision": "int8", "prune": 0.3},
]
QUICK = [{"format": "onnx"}, {"format": "onnx", "precision": "int8"}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="a finished run; default: search first")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3, help="of training after pruning")
    parser.add_argument("--max-loss", type=float, default=0.5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = args.run or search(Path(folder) / "run", args.trials)
        infos = []
        for number, options in enumerate(QUICK if args.quick else EXPORTS):
            chosen = Options(
                threads=args.threads, epochs=args.epochs, max_loss=args.max_loss, **options
            )
            print(f"--- {options}", flush=True)
            out = export_run(run, Path(folder) / str(number), options=chosen, say=_say)
            infos.append(json.loads((out / "config.json").read_text())["export"])
            print((out / "README.md").read_text().split("## This export")[1], flush=True)
        name = load_bundle(run / "best").config["name"]
    publish("export", f"Exports of the winner on {name}", report(infos), save=not args.quick)


def search(run: Path, trials: int) -> Path:
    """A short search on the clothing photographs."""
    from gsfl_tune.pipeline import search as run_search

    home = os.environ.get("GSFL_TUNE_REAL_DATA")
    if not home:
        raise SystemExit(
            "GSFL_TUNE_REAL_DATA: not set, allowed the folder with clothing/, or --run"
        )
    text = TEXT.replace("PATH", str(Path(home) / "clothing" / "*.parquet"))
    run_search(Experiment.parse(text, overrides=[f"search.trials={trials}"]), run)
    return run


def report(infos: list[dict[str, Any]]) -> str:
    """All tables as one, every row once, as Markdown."""
    rows: dict[str, Measurement] = {}
    for info in infos:
        for row in info["table"]:
            found = Measurement.from_json(row)
            # One that several exports measured stands as it was measured last.
            rows[found.name] = found
    parity = [
        f"- {info['format']} {info['precision']}"
        + (f" -{100 * info['prune']:.0f} %" if info["prune"] else "")
        + f": {info['parity']['probabilities']:.1e} of a probability"
        + (f"; trained on: {info['refined']}" if info["refined"] else "")
        for info in infos
    ]
    conditions = infos[0]["conditions"]
    lines = "\n".join(parity)
    return (
        f"{table(HEADER, cells(list(rows.values())))}\n\n"
        f"{legend(conditions['threads'], conditions['cpu'])}\n\n"
        f"Largest difference from PyTorch with the same weights on "
        f"{infos[0]['parity']['images']} validation images:\n\n{lines}"
    )


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
