"""A three-node Ray cluster on this machine, in a process of its own, to be killed by parts.

``python -m benchmarks.faults.nodes FOLDER`` starts it with `ray.cluster_utils.Cluster`, prints a
line of JSON whenever its nodes change, takes ``add`` on standard input, and ends everything
when that is closed. A process of its own, because Ray keeps one token and one cluster a process.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]


class Nodes:
    """The cluster as its killer sees it: an address, and pids.

    Args:
        folder: For the nodes' temporary files; a short path, sockets lie below it.
        workers: Nodes besides the head, which runs no trials.
    """

    def __init__(self, folder: Path, workers: int = 2, **variables: str) -> None:
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            # Ray would look for itself on the network card; all of this is on loopback.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(
                [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            **variables,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.faults.nodes", str(folder), str(workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.environment,
            cwd=ROOT,
            text=True,
            start_new_session=True,
        )
        self._read()

    def add(self) -> None:
        """Adds a worker node, as an autoscaler does for one that was lost."""
        assert self._process.stdin is not None
        self._process.stdin.write("add\n")
        self._process.stdin.flush()
        self._read()

    def kill_head(self) -> None:
        """Kills all processes of the head at once: nothing of it can say goodbye."""
        for pid in self.head:
            kill(pid)

    def close(self) -> None:
        """Ends what is left."""
        family = _family(self._process.pid)
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the cluster did not start ({self._process.wait()})")
        state: dict[str, Any] = json.loads(line)
        self.address: str = state["address"]
        self.head: list[int] = state["head"]
        self.gcs: int = state["gcs"]
        self.head_raylet: int = state["head_raylet"]
        self.raylets: dict[str, int] = state["raylets"]
        self.environment["RAY_ADDRESS"] = self.address


@contextmanager
def nodes(workers: int = 2, **variables: str) -> Iterator[Nodes]:
    """A cluster that ends with the block; variables are those of its nodes and of drivers."""
    with tempfile.TemporaryDirectory(prefix="f", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = Nodes(Path(folder), workers, **variables)
        try:
            yield cluster
        finally:
            cluster.close()


def kill(pid: int) -> None:
    """``kill -9``; a process that is gone already is fine."""
    if pid <= 1:
        raise ValueError(f"process {pid} is not ours")
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def serve(folder: Path, workers: int) -> None:
    from ray._private import ray_constants, utils
    from ray.cluster_utils import Cluster

    ray_constants.ENABLE_RAY_CLUSTER = False
    # Where every other `ray.init()` on this machine would look for a cluster to join.
    utils.write_ray_address = lambda *arguments: None
    said = sys.stdout
    sys.stdout = sys.stderr
    common = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "temp_dir": str(folder / "h"), **common},
    )
    count = 0

    def add() -> None:
        nonlocal count
        count += 1
        cluster.add_node(num_cpus=1, temp_dir=str(folder / f"w{count}"), **common)

    def tell() -> None:
        processes = {
            kind: [each.process.pid for each in started]
            for kind, started in cluster.head_node.all_processes.items()
        }
        state = {
            "address": cluster.address,
            "head": [pid for pids in processes.values() for pid in pids],
            "gcs": processes["gcs_server"][0],
            "head_raylet": processes["raylet"][0],
            "raylets": {
                node.node_id: node.all_processes["raylet"][0].process.pid
                for node in cluster.worker_nodes
            },
        }
        said.write(json.dumps(state) + "\n")
        said.flush()

    for _ in range(workers):
        add()
    tell()
    for line in sys.stdin:
        if line.strip() == "add":
            add()
            tell()
    for node in [*cluster.worker_nodes, cluster.head_node]:
        node.kill_all_processes(check_alive=False, allow_graceful=False, wait=False)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
