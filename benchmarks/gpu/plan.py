"""Which steps there are, how long each may take, and how they are run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

from benchmarks.gpu.page import page
from benchmarks.gpu.record import Record, read_json, write_json
from benchmarks.gpu.size import Size

# In the order in which they are run, the most important first: most seconds that one may take.
STEPS: dict[str, int] = {
    "machine": 60,
    "correct": 90,
    "finetune": 120,
    "features": 100,
    "loader": 90,
    "head": 60,
    "memory": 75,
    "train": 90,
    "compile": 120,
}
# A step is not begun with less.
_WORTH_BEGINNING = 15
_LINES = 25


@dataclass(frozen=True)
class Plan:
    """One run of the kit.

    Attributes:
        names: Steps, in order.
        seconds: For all of them.
        out: Where ``gpu.json``, ``gpu.md`` and the steps' output go.
        tiny: Whether it is a smoke run. Nothing is timed in it, so that two steps run at a time.
    """

    names: list[str]
    seconds: float
    out: Path
    tiny: bool


def run_plan(plan: Plan) -> int:
    """Runs the steps of a plan; a step that fails ends no other.

    Returns:
        0 if every step met what it asserts, 1 if not.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + plan.seconds
    # Steps that are left out this time keep their results.
    found: dict[str, dict[str, Any]] = read_json(plan.out / "gpu.json")
    lock = Lock()

    def one(name: str) -> None:
        result = _in_a_process(name, plan, end, Path(shared))
        with lock:
            found[name] = result
            ordered = {each: found[each] for each in STEPS if each in found}
            write_json(plan.out / "gpu.json", ordered)
            (plan.out / "gpu.md").write_text(page(ordered))

    with (
        tempfile.TemporaryDirectory(prefix="gpu-") as shared,
        ThreadPoolExecutor(2 if plan.tiny else 1) as pool,
    ):
        # The longest of a smoke run come last in the order of importance.
        list(pool.map(one, plan.names[::-1] if plan.tiny else plan.names))
    print(page({each: found[each] for each in plan.names}))
    return 0 if all(found[name]["state"] == "passed" for name in plan.names) else 1


def _in_a_process(name: str, plan: Plan, end: float, shared: Path) -> dict[str, Any]:
    left = end - time.monotonic()
    if left < _WORTH_BEGINNING:
        return {"state": "not run: no time left", "seconds": 0, "rows": [], "notes": []}
    limit = min(STEPS[name], left)
    record, log = plan.out / f"{name}.json", plan.out / f"{name}.log"
    record.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu", "--step", name]
    command += ["--out", str(plan.out), "--shared", str(shared), *(["--tiny"] if plan.tiny else [])]
    print(f"== {name}: at most {limit:.0f} s", flush=True)
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Two steps share the cores of a smoke run.
            env=os.environ
            | {"PYTHONFAULTHANDLER": "1"}
            | ({"OMP_NUM_THREADS": "1"} if plan.tiny else {}),
        )
        try:
            state = _ended(process.wait(limit))
        except subprocess.TimeoutExpired:
            state = f"cut off after {limit:.0f} s"
        finally:
            _end(process)
    seconds = round(time.monotonic() - started, 1)
    result = {"state": state, "seconds": seconds, "rows": [], "notes": []}
    if record.exists():
        result |= json.loads(record.read_text())
    if state != "passed":
        result["output"] = log.read_text(errors="replace").splitlines()[-_LINES:]
    print(f"== {name}: {state} in {seconds} s", flush=True)
    return result


def _ended(code: int) -> str:
    """Says how a step ended; one that crashes leaves no words of its own."""
    if code < 0:
        return f"failed: killed by signal {-code}"
    return "failed" if code else "passed"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a step with all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_step(name: str, out: Path, shared: Path, *, tiny: bool) -> int:
    """Runs one step in this process.

    Returns:
        0 if it met what it asserts, 1 if not.
    """
    size = Size(tiny, shared)
    record = Record(out / f"{name}.json", timed=size.device.type == "cuda")
    try:
        import_module(f"benchmarks.gpu.steps.{name}").run(record, size)
    except Exception:
        traceback.print_exc()
        return 1
    return 1 if record.failed else 0
