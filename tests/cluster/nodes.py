"""Real raylets on this machine, each with what is wrong with it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gsfl_tune
from tests.waiting import listens, wait_until

PACKAGE = Path(gsfl_tune.__file__).parent


def can_unshare() -> bool:
    """Whether this user may give a process its own mounts."""
    tool = shutil.which("unshare")
    done = tool and subprocess.run([tool, "-m", "true"], check=False, capture_output=True)
    return bool(done) and done.returncode == 0


def mounted(commands: str) -> list[str]:
    """What to put in front of a command so that it has mounts of its own."""
    return ["unshare", "-m", "sh", "-c", f'{commands} && exec "$@"', "sh"]


class Nodes:
    """A cluster on loopback with a token, ended by the ids of its processes."""

    def __init__(self) -> None:
        # Sockets may have 107 characters: pytest's own directories are too deep.
        self.directory = Path(tempfile.mkdtemp(prefix="gn-", dir="/tmp"))
        self.port = _free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.environment = {
            **{key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            "GSFL_TUNE_CACHE": str(self.directory / "cache"),
            "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]),
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, *, cpus: int = 1, gpus: int = 0, before: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """Starts a node, the first one as head; does not wait for it."""
        name = f"n{len(self.processes)}"
        role = ["--address", self.address]
        if not self.processes:
            role = ["--head", "--port", str(self.port), "--include-dashboard", "false"]
            # Without a dashboard too, Ray complains where another one has the port.
            role += ["--dashboard-port", str(_free_port())]
            role += ["--ray-client-server-port", str(_free_port())]
        command = [
            *before,
            *(sys.executable, "-m", "gsfl_tune.cluster.session.loopback", "start", "--block"),
            *("--node-ip-address", "127.0.0.1", "--num-cpus", str(cpus), "--num-gpus", str(gpus)),
            *("--object-store-memory", "134217728", "--dashboard-agent-listen-port", "0"),
            *("--temp-dir", str(self.directory / name), *role),
        ]
        with Path(self.directory, f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        if len(self.processes) == 1:
            self._wait_for_port()
        return process

    def wait(self, count: int) -> None:
        """Until the head knows so many living nodes."""
        script = (
            "import ray, sys, time\n"
            "from tests.waiting import wait_until\n"
            "deadline = time.monotonic() + 240\n"
            "while not ray.is_initialized():\n"
            "    try:\n"
            "        ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')\n"
            # The head answers before its own node is there.
            "    except ConnectionError:\n"
            "        assert time.monotonic() < deadline\n"
            "count = int(sys.argv[2])\n"
            "living = lambda: sum(node['Alive'] for node in ray.nodes())\n"
            "wait_until(lambda: living() >= count, f'{count} nodes live', timeout=240, every=0.2)\n"
        )
        done = self.python("-c", script, self.address, count)
        if done.returncode != 0:
            logs = "".join(log.read_text() for log in self.directory.glob("*.log"))
            raise RuntimeError(done.stdout + done.stderr + logs)

    def python(self, *arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        """A driver's process."""
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
            **options,
        )

    def gsfl_tune(self, *arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        """``gsfl-tune ARGUMENTS``."""
        return self.python("-m", "gsfl_tune", *arguments, **options)

    def close(self) -> None:
        """Ends the workers first: a head that is gone leaves them waiting for it."""
        for process in reversed(self.processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGCONT)
                process.terminate()
        for process in reversed(self.processes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _wait_for_port(self) -> None:
        log = self.directory / "n0.log"
        head = self.processes[0]
        wait_until(
            lambda: listens(self.port),
            "the head listens",
            timeout=90,
            process=head,
            output=log.read_text,
        )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
