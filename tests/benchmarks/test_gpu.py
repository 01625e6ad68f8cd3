"""The kit for a GPU: what a step that fails, hangs or is left out does to the others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

STEPS = {
    "machine": "record.check('first', True, '1', '1')",
    "correct": "record.value('before', 'it'); raise RuntimeError('a reason')",
    "finetune": "record.check('a bar', False, '0.5', 'at least 1')",
    # Longer than the half minute that there is.
    "features": "record.value('before', 'it hangs'); import time; time.sleep(600)",
    "loader": "record.value('never', 'reached')",
}


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The real runner with steps that go wrong, in 20 seconds that the fourth one uses up."""
    root = tmp_path_factory.mktemp("kit")
    shutil.copytree(BENCHMARKS / "gpu", root / "benchmarks" / "gpu")
    for helper in ("_report.py", "_gpu.py"):
        shutil.copy(BENCHMARKS / helper, root / "benchmarks")
    for name, body in STEPS.items():
        text = f"def run(record, size):\n    {body}\n"
        (root / "benchmarks" / "gpu" / "steps" / f"{name}.py").write_text(text)
    out = root / "out"
    out.mkdir()
    kept = {"state": "passed", "seconds": 1, "rows": [], "notes": []}
    (out / "gpu.json").write_text(json.dumps({"head": kept, "loader": kept}))
    limits = root / "benchmarks" / "gpu" / "plan.py"
    limits.write_text(limits.read_text().replace("_WORTH_BEGINNING = 15", "_WORTH_BEGINNING = 5"))
    command = ["-m", "benchmarks.gpu", "--out", str(out), "--minutes", "0.5", "--only", *STEPS]
    process = subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "benchmarks")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return process, out


@pytest.mark.slow
def test_a_step_that_fails_ends_no_other(done):
    process, out = done
    found = json.loads((out / "gpu.json").read_text())
    assert process.returncode == 1
    assert found["machine"]["state"] == "passed"
    assert found["correct"]["state"] == "failed"
    assert found["correct"]["rows"][0]["what"] == "before"
    assert any("a reason" in line for line in found["correct"]["output"])
    assert found["finetune"]["state"] == "failed"
    assert found["finetune"]["rows"][0]["met"] is False


@pytest.mark.slow
def test_a_step_that_hangs_is_cut_off_and_keeps_its_rows(done):
    _, out = done
    found = json.loads((out / "gpu.json").read_text())
    assert found["features"]["state"].startswith("cut off after")
    assert found["features"]["rows"][0]["found"] == "it hangs"
    assert found["loader"]["state"] == "not run: no time left"


@pytest.mark.slow
def test_a_step_that_is_left_out_keeps_its_result_and_the_page_has_all(done):
    _, out = done
    assert json.loads((out / "gpu.json").read_text())["head"]["state"] == "passed"
    page = (out / "gpu.md").read_text()
    for heading in ("## machine", "## correct", "## features", "## head"):
        assert heading in page
    assert "RuntimeError: a reason" in page
    assert "**no**" in page


def test_an_unknown_step_is_refused():
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--only", "heads"],
        cwd=BENCHMARKS.parent,
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "invalid choice: 'heads'" in process.stderr
