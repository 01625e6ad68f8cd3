from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from gsfl_tune.cluster import Slots, fit, ray_session, slots
from gsfl_tune.cluster.resources import start_ray
from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError
from gsfl_tune.experiment.search_config import ResourcesConfig

TWO_CORES = {"CPU": 2.0, "memory": 1e9}
FOUR_GPUS = {"CPU": 16.0, "GPU": 4.0}


def _request(cpu: float = 1, gpu: Any = "auto") -> ResourcesConfig:
    return ResourcesConfig(cpu=cpu, gpu=gpu)


@pytest.mark.parametrize(
    ("request_", "nodes", "expected"),
    [
        (_request(), [TWO_CORES], Slots(1, 0, 2)),
        (_request(0.5), [TWO_CORES], Slots(0.5, 0, 4)),
        (_request(), [FOUR_GPUS], Slots(1, 1, 4)),
        (_request(), [TWO_CORES, FOUR_GPUS], Slots(1, 1, 4)),
        (_request(gpu=0), [TWO_CORES, FOUR_GPUS], Slots(1, 0, 18)),
        # The cores are for four trials: each has a GPU to itself.
        (_request(4, 0.25), [FOUR_GPUS], Slots(4, 1, 4)),
        # Three thirds of each GPU, not 12.12 of all of them.
        (_request(1, 0.33), [FOUR_GPUS], Slots(1, 0.3333, 12)),
        (_request(1, 0.1), [FOUR_GPUS], Slots(1, 0.25, 16)),
        (_request(1, 0.6), [FOUR_GPUS], Slots(1, 1, 4)),
        (_request(1, 3), [FOUR_GPUS, FOUR_GPUS], Slots(1, 3, 2, 3)),
        (ResourcesConfig(cpu=4, gpus_per_trial=2), [FOUR_GPUS, TWO_CORES], Slots(4, 2, 2, 2)),
        (ResourcesConfig(gpus_per_trial=1), [FOUR_GPUS], Slots(1, 1, 4)),
        (ResourcesConfig(cpu=2, workers_per_trial=2), [TWO_CORES], Slots(2, 0, 1, 2)),
        (ResourcesConfig(gpu=2, workers_per_trial=2), [FOUR_GPUS], Slots(1, 2, 2, 2)),
    ],
)
def test_how_many_trials_fit(
    request_: ResourcesConfig, nodes: list[dict[str, float]], expected: Slots
) -> None:
    assert fit(request_, nodes) == expected
    assert fit(request_, nodes, max_concurrent=1).count == 1
    assert fit(request_, nodes, max_concurrent=100).count == expected.count


@pytest.mark.parametrize(
    ("request_", "nodes", "message"),
    [
        (_request(gpu=1.5), [FOUR_GPUS], "whole number"),
        (_request(gpu=1), [TWO_CORES], "2 CPU cores and no GPU"),
        (ResourcesConfig(gpus_per_trial=2), [TWO_CORES], "2 GPUs.*2 CPU cores and no GPU"),
        (ResourcesConfig(gpus_per_trial=8), [FOUR_GPUS] * 2, "8 GPUs.*16 CPU cores and 4 GPUs"),
        (ResourcesConfig(gpu=0.5, gpus_per_trial=2), [FOUR_GPUS], "0.5 beside gpus_per_trial 2"),
        (ResourcesConfig(workers_per_trial=2), [FOUR_GPUS], "found 2 with 1 GPU a trial"),
        (_request(3), [TWO_CORES, TWO_CORES], "3 CPU cores and no GPU"),
        (_request(gpu=5), [FOUR_GPUS, FOUR_GPUS], "5 GPUs.*16 CPU cores and 4 GPUs"),
        (_request(), [], "nothing"),
        (_request(gpu=0.001), [FOUR_GPUS], "0.01 to 1"),
        (
            _request(8, 2),
            [TWO_CORES, FOUR_GPUS | {"CPU": 4.0}, TWO_CORES],
            "1 node of 4 CPU cores and 4 GPUs, 2 nodes of 2 CPU cores and no GPU",
        ),
    ],
)
def test_what_can_never_run_is_refused(
    request_: ResourcesConfig, nodes: list[dict[str, float]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit(request_, nodes)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("search.resources.gpu=-1", "at least 0"),
        ("search.resources.cpu=0", "above 0"),
        ("search.resources.cpu=-2", "above 0"),
        ("search.resources.wait=-1", "at least 0"),
    ],
)
def test_negative_requests_are_refused_by_the_file(entry: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=f"--set {entry.partition('=')[0]}: .*{message}"):
        Experiment.parse("name: x\ndata: {source: typefaces}", overrides=[entry])


def test_threads_are_whole_and_at_least_one() -> None:
    assert Slots(0.5, 0, 1).threads == 1
    assert Slots(3.9, 0, 1).threads == 3
    assert Slots(8, 2, 1, workers=2).threads == 4


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
from gsfl_tune.cluster import ray_session
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
    assert slots(_request(gpu=0)) == Slots(1, 0, 2)
    assert slots(_request(gpu=0), max_concurrent=1).count == 1
    with ray_session():
        # A Ray that was there before is used and left alone.
        pass
    assert slots(_request(0.5, 0)).count == 4
