"""The winner of a search in every format and precision: accuracy, size, latency.

A short search on clothing photographs (in ``GSFL_TUNE_REAL_DATA``), then every export that
`gsfl-tune export` knows. Training after pruning and with int8's rounding goes through the whole
network, on a GPU if there is one. When all files are there they are measured on the CPU, one after
the other. A program of torch.export in int8 computes in int8 only after ``torch.compile``: it has a
row for that too, compiled once for each size of batch.

    GSFL_TUNE_REAL_DATA=DIR python benchmarks/export.py       # about an hour on two cores
    python benchmarks/export.py --run RUN                     # another finished run
    python benchmarks/export.py --run RUN --quick             # a smoke run: no pruning, no fp16
    python benchmarks/export.py --run RUN --out DIR           # keeps the files; takes those there
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._inductor.config
from _report import publish, table

from gsfl_tune.experiment import Experiment
from gsfl_tune.export import Bundle, Options, export_run, load_bundle, measure
from gsfl_tune.export.images import RunImages
from gsfl_tune.export.measure import HEADER, Measurement, cells, legend
from gsfl_tune.export.runtimes import ExportedRuntime, Runtime

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
    parser.add_argument("--out", type=Path, help="keep exports here, and take those there are")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3, help="of training after pruning")
    parser.add_argument("--max-loss", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a measurement")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = args.run or search(Path(folder) / "run", args.trials)
        outs = []
        for options in QUICK if args.quick else EXPORTS:
            chosen = Options(epochs=args.epochs, max_loss=args.max_loss, seconds=0, **options)
            out = (args.out or Path(folder)) / _name(options)
            print(f"--- {out.name}", flush=True)
            if not out.exists():
                export_run(run, out, options=chosen, say=_say)
            outs.append(out)
        bundle = load_bundle(run / "best")
        rows = measure_all(bundle, outs, args.seconds)
    infos = [json.loads((out / "config.json").read_text())["export"] for out in outs]
    text = report(rows, infos)
    publish(
        "export", f"Exports of the winner on {bundle.config['name']}", text, save=not args.quick
    )


def measure_all(bundle: Bundle, outs: list[Path], seconds: float) -> list[Measurement]:
    """Measures the run's bundle and every export of it."""
    torch.set_num_threads(measure.cores())
    images = RunImages.open(bundle)
    rows = []
    for path in (bundle.path, *outs):
        found = load_bundle(path, device="cpu")
        name = path.name if path in outs else "PyTorch fp32"
        print(f"measuring {name}", flush=True)
        size = next(path.glob("model.*")).stat().st_size
        rows.append(measure.measure(name, found.runtime, images, size, seconds))
        if name == "torch-export int8":
            print(f"compiling {name}", flush=True)
            rows.append(compiled(rows[-1], found.runtime, images, seconds))
    return rows


def compiled(
    plain: Measurement, runtime: Runtime, images: RunImages, seconds: float
) -> Measurement:
    """A program after ``torch.compile``, once for each size of batch."""
    assert isinstance(runtime, ExportedRuntime)
    with torch._inductor.config.patch(freezing=True):
        runtime._module.compile(dynamic=False)
        squares = images.examples(max(measure.BATCHES))
        latencies = [measure.latency(runtime, squares, b, seconds) for b in measure.BATCHES]
        accuracies = [_whole_batches(runtime, images, part) for part in ("validation", "test")]
    return replace(
        plain, name=f"{plain.name} compiled", latency=latencies,
        validation=accuracies[0], test=accuracies[1],
    )  # fmt: skip


def _whole_batches(runtime: Runtime, images: RunImages, part: str) -> float:
    """Accuracy with every batch filled up to the same size."""
    pool, index = images._part(part)
    size = max(measure.BATCHES)
    right = 0
    for start in range(0, len(index), size):
        chosen = index[start : start + size]
        logits = runtime.logits(pool.gather(np.resize(chosen, size)))[: len(chosen)]
        right += int((logits.argmax(1).numpy() == np.asarray(pool.labels)[chosen]).sum())
    return right / len(index)


def _name(options: dict[str, Any]) -> str:
    pruned = f" -{100 * options['prune']:.0f} %" if "prune" in options else ""
    return f"{options['format']} {options.get('precision', 'fp32')}{pruned}"


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


def report(rows: list[Measurement], infos: list[dict[str, Any]]) -> str:
    """The table as Markdown, and what the files differ by."""
    lines = "\n".join(
        f"- {info['format']} {info['precision']}"
        + (f" -{100 * info['prune']:.0f} %" if info["prune"] else "")
        + f": {info['parity']['probabilities']:.1e} of a probability"
        + "".join(f"; {n} epochs of training ({why})" for why, n in info["refined"].items())
        for info in infos
    )
    conditions = measure.conditions(measure.cores())
    return (
        f"{table(HEADER, cells(rows))}\n\n"
        f"{legend(conditions['threads'], conditions['cpu'])}\n\n"
        f"{measure.doubts(rows)}\n\n"
        f"Largest difference from PyTorch with the same weights on "
        f"{infos[0]['parity']['images']} validation images:\n\n{lines}"
    )


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
