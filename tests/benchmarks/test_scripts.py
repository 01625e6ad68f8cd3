"""Every benchmark can still be started."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_every_script_imports_what_it_needs():
    names = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    packages = ["benchmarks.replay.__main__", "benchmarks.faults.__main__"]
    imports = "".join(f"import {name}\n" for name in [*names, *packages])
    paths = f"import sys; sys.path[:0] = {[str(BENCHMARKS), str(BENCHMARKS.parent)]!r}\n"
    subprocess.run([sys.executable, "-c", paths + imports], check=True, timeout=300)
    assert "glue" in names
