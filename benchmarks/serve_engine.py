"""`gsfl-tune serve` with each engine under many clients: torch, OpenVINO, and OpenVINO in bf16.

The bundle, the JPEG files and the clients are those of `benchmarks/serve.py`. The engines take
turns, each turn with a server of its own, so that other load on the machine slows down all of them.
CPU time a request is that of the server alone; it suffers less from other load than the rate does.
Memory is the proportional set size (PSS) of the server, which runs alone, before and after the
turn.
Probabilities are compared for every image, all classes, with those of the first engine.

    python benchmarks/serve_engine.py             # about three minutes
    python benchmarks/serve_engine.py --quick     # a smoke run, nothing saved
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from benchmarks._report import publish, table
from benchmarks.serve import CLASSES, load, photographs, write_bundle

ENGINES = {
    "`--engine torch`": ["--engine", "torch"],
    "`--engine auto`": [],
    "`--precision bf16`": ["--precision", "bf16"],
}
TARGET = 2.5


@contextlib.contextmanager
def server(bundle: Path, words: list[str]) -> Iterator[tuple[int, psutil.Process]]:
    """A server process, and the port on which it answers."""
    command = [sys.executable, "-m", "gsfl_tune", "serve", str(bundle), "--port", "0", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        yield port, psutil.Process(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def answers(port: int, images: list[bytes]) -> list[dict[str, float]]:
    """The probability of every class, for every image."""
    found = []
    for image in images:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", f"/predict?top={CLASSES}", image)
        (answer,) = json.loads(connection.getresponse().read())["predictions"]
        connection.close()
        found.append(dict(zip(answer["classes"], answer["probabilities"], strict=True)))
    return found


def turn(bundle: Path, words: list[str], clients: int, seconds: float, images: list[bytes]) -> dict:
    with server(bundle, words) as (port, process):
        busy = os.getloadavg()[0]
        started = sum(process.cpu_times()[:2])
        before = process.memory_full_info().pss / 1e6
        said = answers(port, images)
        asyncio.run(load(port, clients, min(2.0, seconds), images))
        spent = sum(process.cpu_times()[:2])
        found = asyncio.run(load(port, clients, seconds, images))
        spent = sum(process.cpu_times()[:2]) - spent
        return {
            **found,
            "said": said,
            "busy": busy,
            "start": started,
            "cpu": 1000 * spent / max(1, found["requests"]),
            "before": before,
            "pss": process.memory_full_info().pss / 1e6,
        }


def spread(turns: list[dict], key: str, digits: int = 1) -> str:
    values = [each[key] for each in turns]
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ratio(turns: dict[str, list[dict]], name: str, other: str, key: str) -> str:
    """The ratio of two engines in each round; medians hide that load comes and goes."""
    pairs = zip(turns[name], turns[other], strict=True)
    ratios = [one[key] / two[key] for one, two in pairs]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--bundle", type=Path, help="default: one made for this")
    parser.add_argument("--quick", action="store_true", help="a smoke run; nothing is saved")
    args = parser.parse_args()
    if args.quick:
        args.clients, args.seconds, args.rounds = 8, 1.0, 1
    with tempfile.TemporaryDirectory(prefix="serve-") as folder:
        bundle = args.bundle or Path(folder) / "bundle"
        if args.bundle is None:
            write_bundle(bundle, quick=args.quick)
        images = photographs(32)
        turns: dict[str, list[dict]] = {name: [] for name in ENGINES}
        for _ in range(args.rounds):
            for name, words in ENGINES.items():
                found = turn(bundle, words, args.clients, args.seconds, images)
                turns[name].append(found)
                print(f"{name}: {found['rate']:.1f} requests/s, {found['cpu']:.1f} CPU ms")
        how = json.loads((bundle / "config.json").read_text())
    first = next(iter(ENGINES))
    expected = turns[first][0]["said"]
    rows = []
    for name, each in turns.items():
        difference = max(
            abs(said[label] - wanted[label])
            for said, wanted in zip(each[0]["said"], expected, strict=True)
            for label in wanted
        )
        quantiles = [turn["quantiles"][1] for turn in each]
        rows.append(
            [
                name, spread(each, "rate"), ratio(turns, name, first, "rate"),
                spread(each, "cpu"), ratio(turns, first, name, "cpu"),
                f"{statistics.median(quantiles):.0f}", spread(each, "before", 0),
                spread(each, "pss", 0), spread(each, "start"),
                sum(turn["errors"] for turn in each), f"{difference:.1e}",
            ]
        )  # fmt: skip
    header = [
        "engine", "requests/s", "ratio", "CPU ms a request", "ratio", "p95, ms",
        "PSS before, MB", "after, MB", "CPU s to start", "errors", "difference of a probability",
    ]  # fmt: skip
    size = how["preprocessing"]["image_size"]
    auto = list(ENGINES)[1]
    rates = [one["rate"] / two["rate"] for one, two in zip(turns[auto], turns[first], strict=True)]
    reached = statistics.median(rates)
    larger = max(t["pss"] for t in turns[auto]) - max(t["pss"] for t in turns[first])
    busy = [each["busy"] for name in turns for each in turns[name]]
    text = (
        f"{args.clients} clients for {args.seconds:g} s in each of {args.rounds} rounds, in which "
        f"the engines take turns; JPEG of 640 x 480; {how['architecture']['backbone']} at {size} "
        "px. Medians, with least and largest; ratios are of the same round. Before a turn the load "
        f"average was {min(busy):.1f} to {max(busy):.1f} on {os.cpu_count()} cores: with more than "
        "one, requests/s say how much of the machine others left.\n\n"
        f"{table(header, rows)}\n\n"
        f"The target is {TARGET} times the requests/s of torch in fp32. `--engine auto` has "
        f"**{reached:.2f} times**: {'reached' if reached >= TARGET else 'missed'}. Its memory "
        f"under load is {abs(larger):.0f} MB {'larger' if larger > 0 else 'smaller'} than "
        "that of torch."
    )
    publish("serve_engine", "gsfl-tune serve with each engine", text, save=not args.quick)


if __name__ == "__main__":
    main()
