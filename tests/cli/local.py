"""A small search, and a real Ray cluster of this machine that ``clusters/local.sh`` starts."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "clusters" / "local.sh"
EXPERIMENT = """\
name: tiny
data:
  source: typefaces
  image_size: 32
  augment: {flip: false}
  typefaces: {train: 6, test: 3, size: 40}
model:
  backbone: test_efficientnet
  weights: none
  latent_dim: {choice: [8, 16]}
training:
  device: cpu
  head: {epochs: 6, batch_size: 32, learning_rate: {float: [1e-3, 1e-2], log: true}}
search:
  trials: 6
  control: off
  finalists: 1
  final_seeds: 1
  scheduler: {name: none}
  resources: {cpu: 1, gpu: 0}
"""


class Cluster:
    """What `local.sh` started.

    Attributes:
        directory: Of its sockets, logs and token.
        environment: What ``local.sh env`` exports.
    """

    def __init__(self, nodes: int) -> None:
        # Sockets may have 107 characters: pytest's own directories are too deep.
        self.directory = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
        self._environment = {
            **os.environ,
            "GSFL_TUNE_LOCAL": str(self.directory),
            "PYTHON": sys.executable,
            "OMP_NUM_THREADS": "1",
            "GSFL_TUNE_CACHE": str(self.directory / "cache"),
        }
        ports = [str(free_port()) for _ in range(2)]
        up = self.script(
            *("up", "--nodes", str(nodes), "--port", ports[0], "--dashboard-port", ports[1])
        )
        if up.returncode != 0:
            raise RuntimeError(f"{up.stdout}{up.stderr}{self.logs()}")
        text = self.script("env").stdout
        self.environment = dict(re.findall(r"export (\w+)='?([^'\n]*)", text))
        self.address = self.environment["RAY_API_SERVER_ADDRESS"]

    def script(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SCRIPT), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=self._environment,
        )

    def logs(self) -> str:
        """What the nodes said: a node that ended tells which of its processes did."""
        return "".join(log.read_text() for log in sorted(self.directory.glob("*.log")))

    def processes(self) -> list[psutil.Process]:
        found = []
        for file in self.directory.glob("node*.pid"):
            parent = psutil.Process(int(file.read_text()))
            found += [parent, *parent.children(recursive=True)]
        return found

    def close(self) -> None:
        self.script("down")
        shutil.rmtree(self.directory, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ended_trials(run_dir: Path) -> dict[int, float]:
    """Values of finished trials, from the journal; none before there is one."""
    from optuna import load_study
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal = run_dir / "study.journal"
    if not journal.exists():
        return {}
    storage = JournalStorage(JournalFileBackend(str(journal)))
    trials = load_study(study_name="search", storage=storage).trials
    return {trial.number: trial.value for trial in trials if trial.state.is_finished()}
