"""Every benchmark can still be started, and a smoke run of it ends with its table."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULTS = BENCHMARKS / "results"
# What needs a finished run (`export.py --run`) is not started by itself.
SMOKE = sorted(
    path.stem
    for path in BENCHMARKS.glob("*.py")
    if '"--quick"' in path.read_text() and path.stem != "export"
)


def test_every_script_imports_what_it_needs():
    names = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    packages = ["benchmarks.replay.__main__", "benchmarks.faults.__main__"]
    imports = "".join(f"import {name}\n" for name in [*names, *packages])
    paths = f"import sys; sys.path[:0] = {[str(BENCHMARKS), str(BENCHMARKS.parent)]!r}\n"
    done = warm.run([], code=paths + imports)
    assert done.returncode == 0, done.stderr
    assert "glue" in names


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOKE)
def test_a_smoke_run_prints_its_table_and_publishes_nothing(name, tmp_path):
    before = {path: path.read_bytes() for path in RESULTS.iterdir()}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick"],
        cwd=tmp_path,
        env=os.environ | {"GSFL_TUNE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "\n| -" in done.stdout
    assert {path: path.read_bytes() for path in RESULTS.iterdir()} == before
