"""How many small faults in the code the tests notice.

A mutant is the package with one fault: a comparison turned, a number off by one, a statement left
out, a function that does nothing. The faults are those of cosmic-ray, and two kinds that it lacks.
A room has too many for all of them, so a random sample is tried, at most one at a place. Each runs
against the test file that mirrors its module, then against the other tests of its room. A mutant
that no test notices survives: a test is missing, or the fault changes nothing that anybody sees.

cosmic-ray itself begins a new Python with torch for every mutant, 8 s of a core. Here a process
that has imported everything but this package is forked, so that the sample of a room takes minutes.

    pip install cosmic-ray
    python benchmarks/mutation.py losses splits            # the score before
    python benchmarks/mutation.py --survivors losses       # what no test noticed
    python benchmarks/mutation.py losses --again           # survivors alone, after mending tests
    python benchmarks/mutation.py --page

Why a mutant may survive is a note by hand, `why` in `results/mutation.jsonl`. A mutant that makes
no sense to Python, such as a shift of a float, is killed by any test that comes by: a score is for
comparing a room with itself, not for praise.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import difflib
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grimp
import psutil
from _mutants import Mutant, sample
from _report import RESULTS, publish, table

ROOT = Path(__file__).parents[1]
LOG = RESULTS / "mutation.jsonl"
# What tests import that is slow. Of this package, a child imports anew what depends on its fault.
HEAVY = (
    *("torch", "torchvision.transforms.v2", "timm", "optuna", "pandas", "pyarrow.parquet"),
    *("sklearn.linear_model", "sklearn.cluster", "scipy.stats", "scipy.optimize", "fsspec"),
    *("pytest", "hypothesis", "ray.tune", "safetensors.torch", "boto3", "PIL.Image", "psutil"),
    *("pytorch_metric_learning.losses", "moto.server", "_hypothesis_pytestplugin"),
    *("pytest_timeout", "readline", "gsfl_tune.pipeline", "gsfl_tune.testing"),
)
NOTES = (
    "Before, `splits` had no test file of `data/grouping.py`: `test_held_out.py` tests it through",
    "whole data sets and does not run here. `study` was tried a second time, at its present size.",
    "`storage` was interrupted after 29 of 60 mutants. The other 31 were tried later, with more",
    "tests; the code of one was gone, so the next of the draw took its place. For the first 29, no",
    "test of that room alone ran `worker_copy.py`, which tests with Ray's workers cover.",
)
# A mutant that takes this much longer than the tests without it hangs, which is noticed too.
SLOWER, SECONDS = 4.0, 60.0


@dataclass(frozen=True)
class Room:
    """What is mutated, and its tests.

    Attributes:
        modules: Patterns below the package.
        tests: Test files, patterns and folders of them.
        own: Dear test files, which run for the modules that they mirror alone.
        left_out: A word in the names of tests that do not run.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    own: tuple[str, ...] = ()
    left_out: str = ""


_OWN = ("test_background_fsync", "test_prefetch", "test_prefetch_process")
ROOMS = {
    "losses": Room(("losses/*.py",), ("tests/losses", "tests/testing/test_loss_terms.py")),
    "splits": Room(
        ("data/splits.py", "data/grouping.py"),
        (
            *("tests/data/test_splits.py", "tests/data/test_grouping.py"),
            "tests/data/test_given_parts.py",
        ),
    ),
    "schedulers": Room(("search/schedulers/*.py",), ("tests/search/schedulers",)),
    # Left out is what starts Ray.
    "study": Room(("search/study/*.py",), ("tests/search/study",), _OWN, "finds_a_front"),
    "run": Room(
        ("run/*.py",), ("tests/run/test_*.py", "tests/search/observers/test_utilisation.py")
    ),
    # Left out is what waits for the time limit of a client of Google's.
    "storage": Room(
        ("run/storage/*.py", "run/storage/backends/*.py"),
        ("tests/run/storage",),
        left_out="bucket_of_google",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rooms", nargs="*", metavar="room", help=", ".join(ROOMS))
    parser.add_argument("--sample", type=int, default=60, help="mutants of a room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="try what survived once more")
    parser.add_argument("--survivors", action="store_true", help="print them, try nothing")
    parser.add_argument("--page", action="store_true", help="write the page, try nothing")
    args = parser.parse_args()
    log = read_log()
    if args.survivors:
        for name in args.rooms:
            show([row for row in log[name] if newest(row) == "survived"])
    elif args.rooms:
        with checkout() as bench:
            try_rooms(*bench, args, log)
    if args.page:
        publish("mutation", "Faults that the tests notice", page(log))


def try_rooms(
    folder: Path,
    graph: grimp.ImportGraph,
    args: argparse.Namespace,
    log: dict[str, list[dict[str, object]]],
) -> None:
    """Adds the outcomes of mutants to the log."""
    for name in args.rooms:
        if not args.again:
            mutants, places = sample(ROOMS[name].modules, args.sample, args.seed)
            about = {"room": name, "places": places}
            log[name] = [about | dataclasses.asdict(mutant) for mutant in mutants]
        label = "after" if args.again else "before"
        try:
            for row in try_all(folder, graph, ROOMS[name], log[name], label):
                print(f"{row[label]:8s} {row['module']}:{row['line']} {row['kind']}", flush=True)
        finally:
            # An interrupted sample is a smaller one: mutants are in random order.
            log[name] = [row for row in log[name] if "before" in row]
            write_log(log)


def read_log() -> dict[str, list[dict[str, object]]]:
    """Returns the mutants of each room with their outcomes."""
    log: dict[str, list[dict[str, object]]] = defaultdict(list)
    for line in LOG.read_text().splitlines() if LOG.exists() else []:
        row = json.loads(line)
        log[row["room"]].append(row)
    return log


def write_log(log: dict[str, list[dict[str, object]]]) -> None:
    """Writes a line for each mutant."""
    LOG.write_text("".join(json.dumps(row) + "\n" for rows in log.values() for row in rows))


def newest(row: dict[str, object]) -> object:
    """Returns the newest outcome of a mutant."""
    return row.get("after", row["before"])


def show(rows: list[dict[str, object]]) -> None:
    """Prints mutants as a patch."""
    for row in rows:
        print(f"\n{row['module']}:{row['line']} {row['kind']}")
        old, new = str(row["old"]).split("\n"), str(row["new"]).split("\n")
        for line in list(difflib.unified_diff(old, new, n=0, lineterm=""))[3:]:
            print("   ", line)


def page(log: dict[str, list[dict[str, object]]]) -> str:
    """Returns the table of all rooms."""
    lines = []
    for name, rows in log.items():
        survived = [row for row in rows if row["before"] == "survived"]
        gone = sum(row.get("after") == "gone" for row in survived)
        still = sum(newest(row) == "survived" for row in survived)
        total, left = len(rows), len(rows) - gone
        numbers = [rows[0]["places"], total, total - len(survived), len(survived)]
        score = [f"{1 - len(survived) / total:.0%}", f"{1 - still / left:.0%}"]
        lines.append(
            [name, *numbers, score[0], len(survived) - gone - still, gone, still, score[1]]
        )
    header = [
        *("room", "places", "mutants", "killed", "survived", "score before"),
        *("killed by mended tests", "code deleted", "still survive", "score after"),
    ]
    left = [
        f"- `{row['module']}:{row['line']}`, {row['kind']}: {row.get('why', 'not looked at yet')}"
        for rows in log.values()
        for row in rows
        if newest(row) == "survived"
    ]
    return "\n".join(
        [table(header, lines), "", *NOTES, "", "What still survives, and why:", "", *left]
    )


# How they are tried.


@contextmanager
def checkout() -> Iterator[tuple[Path, grimp.ImportGraph]]:
    """Copies what tests need, and imports what is slow from there."""
    with tempfile.TemporaryDirectory(prefix="mutation.") as name:
        folder = Path(name).resolve()
        needed = ("gsfl_tune", "tests", "docs", "benchmarks", "search_spaces", "examples")
        for each in (*needed, "pyproject.toml"):
            copy = shutil.copytree if (ROOT / each).is_dir() else shutil.copy2
            copy(ROOT / each, folder / each)
        sys.path.insert(0, str(folder))
        os.environ["PYTHONPATH"] = str(folder)
        for each in HEAVY:
            with suppress(ImportError):
                importlib.import_module(each)
        graph = grimp.build_graph("gsfl_tune")
        # Processes that a killed test leaves behind become children of this one, which ends them.
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
        # A collection would touch, and so copy, the whole heap in every child: 1 s.
        gc.collect()
        gc.freeze()
        yield folder, graph


def try_all(
    folder: Path,
    graph: grimp.ImportGraph,
    room: Room,
    rows: list[dict[str, object]],
    label: str,
) -> Iterator[dict[str, object]]:
    """Runs the tests on mutants, one after another, and yields each with its outcome."""
    files = test_files(room)
    began = time.monotonic()
    if run_tests(folder, files, room, 3600.0, set()) != 0:
        raise SystemExit((folder / "output").read_text()[-4000:])
    limit = SLOWER * (time.monotonic() - began) + SECONDS
    print(f"{(limit - SECONDS) / SLOWER:.0f} s without a fault", flush=True)
    for number, row in enumerate(rows):
        if label == "before" or row["before"] == "survived":
            mutant = Mutant(**{field.name: row[field.name] for field in dataclasses.fields(Mutant)})
            row[label] = outcome(folder, graph, mutant, room, limit, number)
            yield row


def outcome(
    folder: Path,
    graph: grimp.ImportGraph,
    mutant: Mutant,
    room: Room,
    limit: float,
    number: int,
) -> str:
    """Returns killed, survived, or gone where the code has changed."""
    path = folder / "gsfl_tune" / mutant.module
    source, status = path.read_text(), path.stat()
    code = mutant.of(source)
    if code is None:
        return "gone"
    path.write_text(code)
    # Python compiles again where size or time differ.
    os.utime(path, (status.st_atime, 1_000_000_000 + 10 * number))
    try:
        files, mirror = test_files(room), "test_" + path.stem.removeprefix("_")
        first = [file for file in files if Path(file).stem == mirror]
        others = [f for f in files if f not in first and Path(f).stem not in room.own]
        name = "gsfl_tune." + mutant.module.removesuffix(".py").replace("/", ".")
        stale = {name, *graph.find_downstream_modules(name)}
        code = run_tests(folder, [*first, *others], room, limit, stale)
        return "survived" if code == 0 else "killed"
    finally:
        path.write_text(source)
        os.utime(path, (status.st_atime, status.st_mtime))


def test_files(room: Room) -> list[str]:
    """Returns the test files of a room."""
    files = []
    for name in room.tests:
        path = ROOT / name
        found = sorted(path.rglob("test_*.py") if path.is_dir() else path.parent.glob(path.name))
        files += [str(file.relative_to(ROOT)) for file in found]
    return files


def run_tests(folder: Path, files: list[str], room: Room, limit: float, stale: set[str]) -> int:
    """Runs tests in a copy of the checkout until one fails; any number but 0 is a failure.

    Modules that are `stale` are imported anew.
    """
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            os.chdir(folder)
            output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(output, stream)
            for name in stale & sys.modules.keys():
                del sys.modules[name]
            import pytest

            options = [
                "-x",
                "-q",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:xdist",
                "-p",
                "no:anyio",
                "-m",
                "not slow",
            ]
            if room.left_out:
                options += ["-k", f"not {room.left_out}"]
            code = int(pytest.main([*options, *files]))
        finally:
            os._exit(code)
    deadline = time.monotonic() + limit
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        status = 256
    for left in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            left.kill()
    with suppress(ChildProcessError):
        while os.waitpid(-1, 0)[0]:
            pass
    return status


if __name__ == "__main__":
    main()
