"""From `gsfl-tune submit` to the first trial, on a cluster that stands.

`clusters/local.sh` starts a head with a dashboard and workers on this machine. A search of head
trials on rendered letters is submitted some times; when its files appear says how long each step
took. The first search finds an empty cache and computes the features; the others find them. "A
job that does nothing" is the same submission with `python -c pass`: what Ray's job server costs by
itself.

    python benchmarks/submit.py            # three searches: about two minutes on two cores
    python benchmarks/submit.py --quick    # one
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from _report import publish, table

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "clusters" / "local.sh"
YAML = """\
name: submitted
data:
  source: typefaces
  image_size: 64
  typefaces: {train: 16, test: 4, size: 64}
model:
  backbone: resnet10t
  weights: none
  latent_dim: {choice: [64, 128]}
training:
  head: {epochs: 9, learning_rate: {float: [1e-3, 1e-2], log: true}}
search:
  trials: 2
  control: off
  finalists: 1
  final_seeds: 1
  resources: {cpu: 1, gpu: 0}
"""
STEPS = {
    "the command has checked, uploaded, started the job": "submitted",
    "the driver has checked everything, preflight included": "checked",
    "a trial is told to begin": "told",
    "its first epoch is over": "epoch",
}


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """A head with the job server; gives the environment of somebody who uses it."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        "GSFL_TUNE_LOCAL": str(folder / "c"),
        "GSFL_TUNE_CACHE": str(folder / "cache"),
        "PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    ports = [str(_free_port()) for _ in range(2)]
    up = [*(str(SCRIPT), "up", "--nodes", "1"), *("--port", ports[0], "--dashboard-port", ports[1])]
    subprocess.run(up, env=environment, check=True, stdout=subprocess.DEVNULL)
    try:
        said = subprocess.run(
            [str(SCRIPT), "env"], env=environment, check=True, capture_output=True, text=True
        )
        yield {**environment, **dict(re.findall(r"export (\w+)='?([^'\n]*)", said.stdout))}
    finally:
        subprocess.run([str(SCRIPT), "down"], env=environment, stdout=subprocess.DEVNULL)


def submitted(folder: Path, number: int, environment: dict[str, str]) -> dict[str, float]:
    """Seconds from the command to each step."""
    run = folder / f"run{number}"
    started = time.perf_counter()
    found: dict[str, float] = {}
    command = subprocess.Popen(
        [sys.executable, "-m", "gsfl_tune", "submit", "s.yaml", "--run-dir", str(run), "--follow"],
        cwd=folder / "home",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert command.stdout is not None
    for line in command.stdout:
        if line.startswith("job: "):
            found["submitted"] = time.perf_counter() - started
            break
    seen: dict[str, Callable[[], bool]] = {
        "checked": (run / "run.json").exists,
        "told": lambda: any(run.glob("trials/*")),
        "epoch": lambda: any(run.glob("trials/*/epochs.jsonl")),
    }
    deadline = time.monotonic() + 120
    while len(found) < len(STEPS):
        for name, there in seen.items():
            if name not in found and there():
                found[name] = time.perf_counter() - started
        if time.monotonic() > deadline:
            raise RuntimeError(f"no first epoch in 120 s; see {run}")
        time.sleep(0.01)
    command.communicate()
    if command.returncode != 0:
        raise RuntimeError(f"the search ended with {command.returncode}")
    return found


def nothing(folder: Path, environment: dict[str, str]) -> float:
    """Seconds from a submission to the end of a job that does nothing."""
    code = (
        "from gsfl_tune.cluster import Jobs, connect; import os, time; "
        "jobs = Jobs(connect(os.environ['RAY_API_SERVER_ADDRESS'])); begun = time.perf_counter(); "
        "name = jobs.submit(f'n{time.time_ns()}', 'python -c pass', working_dir='.', "
        "notes={}, environment={}); jobs.follow(name, lambda text: None); "
        "print(time.perf_counter() - begun)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder / "home",
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return float(said.stdout.splitlines()[-1])


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one search, nothing saved")
    options = parser.parse_args()
    # Sockets may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="gs-", dir="/tmp"))
    (folder / "home").mkdir()
    (folder / "home" / "s.yaml").write_text(YAML)
    try:
        with cluster(folder) as environment:
            times = [submitted(folder, n, environment) for n in range(1 if options.quick else 3)]
            idle = nothing(folder, environment)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = [[step, *(f"{each[name]:.1f} s" for each in times)] for step, name in STEPS.items()]
    header = ["since the command", "empty cache", *("warm cache" for _ in times[1:])]
    text = f"{table(header, rows)}\n\nA job that does nothing takes {idle:.1f} s to its end."
    publish("submit", "From submission to the first trial", text, save=not options.quick)


if __name__ == "__main__":
    main()
