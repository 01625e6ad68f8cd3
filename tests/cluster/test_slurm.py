"""``slurm.sh`` with stand-ins for Slurm's commands: one node, real Ray, a real search."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.local import EXPERIMENT, ended_trials
from tests.waiting import wait_until

SCRIPT = Path(__file__).parents[2] / "clusters" / "slurm.sh"
# `srun` starts what follows its options; `scontrol` knows one node, and notes what is queued again.
STANDINS = {
    "srun": """
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
""",
    "scontrol": """
case $1 in
  show) echo "$SLURM_JOB_NODELIST" ;;
  requeue) echo "$2" >>"$REQUEUED" ;;
esac
""",
}


@pytest.fixture
def slurm(tmp_path: Path):
    """Starts the script as Slurm would; whatever is left of the job ends with the test."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in STANDINS.items():
        (tools / name).write_text(f"#!/bin/sh{text}")
        (tools / name).chmod(0o755)
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT)
    environment = {
        **os.environ,
        "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": socket.gethostname(),
        "SLURM_CPUS_PER_TASK": "1",
        "REQUEUED": str(tmp_path / "requeued"),
        "OMP_NUM_THREADS": "1",
        "GSFL_TUNE_CACHE": str(tmp_path / "cache"),
    }
    jobs: list[subprocess.Popen[bytes]] = []

    def is_over(job: subprocess.Popen[bytes]) -> bool:
        job.poll()
        try:
            os.killpg(job.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def end(job: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGTERM)
            with suppress(AssertionError):
                wait_until(lambda: is_over(job), "no process of the job is left", timeout=5)
            os.killpg(job.pid, signal.SIGKILL)

    def start(*arguments: object) -> subprocess.Popen[bytes]:
        for earlier in jobs:
            end(earlier)
        with (tmp_path / "output").open("ab") as output:
            job = subprocess.Popen(
                [SCRIPT, *map(str, arguments)],
                cwd=tmp_path,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        jobs.append(job)
        return job

    yield start
    for job in jobs:
        end(job)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_job_at_its_time_limit_is_queued_again_and_goes_on(slurm, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "tiny"
    trials = ["--set", "search.trials=40"]
    first = slurm("tiny.yaml", run, *trials)
    wait_until(
        lambda: len(ended_trials(run)) >= 3,
        "three trials have ended",
        timeout=900,
        every=0.3,
        process=first,
        output=(tmp_path / "output").read_text,
    )
    # As `--signal=B:TERM@120` does.
    first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 3
    kept = ended_trials(run)
    assert 3 <= len(kept) < 40
    assert (tmp_path / "requeued").read_text() == f"{os.getpid()}\n"
    assert not list(tmp_path.glob("runs/*/token"))

    trials[1] = f"search.trials={len(kept) + 2}"
    second = slurm("tiny.yaml", run, *trials)
    assert second.wait(900) == 0, (tmp_path / "output").read_text()
    after = ended_trials(run)
    assert len(after) == len(kept) + 2
    assert {number: after[number] for number in kept} == kept
    assert (tmp_path / "requeued").read_text() == f"{os.getpid()}\n"


def test_a_run_directory_that_other_nodes_cannot_see_is_refused(slurm, tmp_path: Path) -> None:
    assert slurm("tiny.yaml", "runs/tiny").wait(60) == 2
    assert "allowed is an absolute path" in (tmp_path / "output").read_text()
