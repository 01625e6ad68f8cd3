"""Training steps on the CPU with freed memory kept in the process, and without.

Without, glibc maps every large tensor anew, and the system fills its pages with zeros. Each case is
the finetune stage of a trial, as `benchmarks/finetune.py` has it, on one thread. Both sides take
turns, each time in a process of its own; the first epoch is not counted.

    python benchmarks/heap.py            # about ten minutes on two cores
    python benchmarks/heap.py --quick    # a smoke run
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from _report import publish, spread, table
from finetune import prepare

CASES: dict[str, dict[str, Any]] = {
    "EfficientNet-Lite0, cached activations, last 2 blocks": {"blocks": 2, "views": 1},
    "EfficientNet-Lite0, fresh augmentation, last 2 blocks": {"blocks": 2},
    "EfficientNet-Lite0, all blocks": {},
    "ResNet-50, fresh augmentation, last block": {"blocks": 1, "backbone": "resnet50"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--side", choices=("kept", "mapped"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, quick=args.quick)))
        return
    found: dict[str, list[dict[str, Any]]] = {"mapped": [], "kept": []}
    for _ in range(1 if args.quick else args.rounds):
        for side, runs in found.items():
            command = [sys.executable, __file__, "--side", side, *["--quick"] * args.quick]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    publish("heap", "Freed memory kept", page(found), save=not args.quick)


def measure(side: str, *, quick: bool) -> dict[str, Any]:
    """Runs every case in this process."""
    torch.set_num_threads(1)
    steps = 2 if quick else 8
    found = {}
    with tempfile.TemporaryDirectory() as folder, _as(side):
        bench = prepare(torch.device("cpu"), steps, Path(folder), quick=quick)
        for name, options in CASES.items():
            own = dict(options)
            backbone = own.pop("backbone", bench.backbone)
            weights = bench.weights if backbone == bench.backbone else "none"
            epoch = bench.__class__(
                **{**vars(bench), "backbone": backbone, "weights": weights}
            ).ours("gsfl", **own)
            epoch(0)
            before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            epoch(1)
            seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
            images = len(bench.positions)
            found[name] = {
                "rate": images / seconds,
                "system": (after.ru_stime - before.ru_stime) / seconds,
                "faults": (after.ru_minflt - before.ru_minflt) / steps,
                "memory": after.ru_maxrss * 1024,
            }
    return found


def _as(side: str) -> Any:
    target = "gsfl_tune.training.training.keep_freed"
    return mock.patch(target, **({} if side == "mapped" else {"wraps": _keep()}))


def _keep() -> Any:
    from gsfl_tune.heap import keep_freed

    return keep_freed


def page(found: dict[str, list[dict[str, Any]]]) -> str:
    """The table."""
    rows = []
    for name in CASES:
        for side, runs in found.items():
            own = [run[name] for run in runs]
            rows.append(
                [
                    name,
                    {"mapped": "as glibc does", "kept": "kept"}[side],
                    spread([one["rate"] for one in own]),
                    f"{statistics.median(one['system'] for one in own):.0%}",
                    f"{statistics.median(one['faults'] for one in own):,.0f}",
                    f"{max(one['memory'] for one in own) / 1e9:.1f} GB",
                ]
            )
        pairs = zip(found["kept"], found["mapped"], strict=True)
        ratios = [kept[name]["rate"] / mapped[name]["rate"] for kept, mapped in pairs]
        rows.append([name, "**kept / as glibc does**", spread(ratios, ".2f"), "", "", ""])
    header = [
        "case",
        "memory",
        "images/s",
        "time in the kernel",
        "page faults a step",
        "peak so far",
    ]
    return table(header, rows)


if __name__ == "__main__":
    main()
