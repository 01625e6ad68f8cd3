from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gsfl_tune.cluster import Slots, ray_session, slots
from gsfl_tune.cluster.session.start import start_ray
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.experiment.search_config import ResourcesConfig


def test_a_cluster_that_does_not_answer_is_the_users_error() -> None:
    import ray

    if ray.is_initialized():
        pytest.skip("this process is connected already")
    with pytest.raises(UserError, match=r"not-an-address"), ray_session("not-an-address"):
        pass


def test_a_ray_that_does_not_start_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    if ray.is_initialized():
        pytest.skip("this process is connected already")
    file = tmp_path / "file"
    file.touch()
    # Where Ray makes its folder.
    monkeypatch.setenv("RAY_TMPDIR", str(file))
    with pytest.raises(EnvironmentProblem, match=f"not start on this machine.*{file}"):
        start_ray(cpus=1)
    assert not ray.is_initialized()


def test_a_local_ray_listens_on_loopback_only(ray_of_tests: None) -> None:
    mine = psutil.Process(os.getpid())
    listening = [
        (process.name(), connection.laddr.ip.removeprefix("::ffff:"))
        for process in [mine, *mine.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert [entry for entry in listening if entry[1] not in ("127.0.0.1", "::1")] == []


@pytest.mark.slow  # Ray tries for 20 s
@pytest.mark.parametrize("token", [None, "0" * 64])
def test_a_local_ray_lets_nobody_in_without_its_token(
    ray_of_tests: None, token: str | None, tmp_path: Path
) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")},
        "HOME": str(tmp_path),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token" if token else "disabled",
        **({"RAY_AUTH_TOKEN": token} if token else {}),
    }
    done = subprocess.run(
        [sys.executable, "-m", "gsfl_tune", "doctor", "--address", address],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Authentication token is missing or incorrect" in done.stderr
    assert "copy the head's" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow  # Ray waits for 30 s
def test_a_local_ray_that_is_slow_to_start_gets_a_second_try() -> None:
    program = """
import os, signal, sys, threading, time
import psutil
stopped = []
def stop_the_first_raylet():
    while not stopped:
        for child in psutil.Process().children(recursive=True):
            try:
                if child.name() == "raylet":
                    os.kill(child.pid, signal.SIGSTOP)
                    stopped.append(child)
            except (psutil.Error, ProcessLookupError):
                pass
        # Often enough to stop the raylet before it is up.
        time.sleep(0.005)
threading.Thread(target=stop_the_first_raylet, daemon=True).start()
from gsfl_tune.cluster import Slots, ray_session, slots
with ray_session(cpus=1):
    import ray
    print("worked", ray.get(ray.remote(lambda: 41 + 1).remote()), len(stopped))
    print("left", stopped[0].is_running() and stopped[0].status() != "zombie")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert "worked 42 1" in done.stdout
    assert "left False" in done.stdout


def test_slots_of_the_ray_that_runs(ray_of_tests: None) -> None:
    assert slots(ResourcesConfig(cpu=1, gpu=0)) == Slots(1, 0, 2)
    assert slots(ResourcesConfig(cpu=1, gpu=0), max_concurrent=1).count == 1
    with ray_session():
        # A Ray that was there before is used and left alone.
        pass
    assert slots(ResourcesConfig(cpu=0.5, gpu=0)).count == 4
