"""Searches as jobs of a real Ray cluster that ``clusters/local.sh`` starts."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from gsfl_tune.cluster import Jobs, connect
from tests.cli.local import EXPERIMENT, Cluster, ended_trials, free_port
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    started = Cluster(nodes=1)
    yield started
    started.close()


@pytest.fixture
def home(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's directory, in a shell that knows the cluster."""
    _enter(cluster, tmp_path, monkeypatch)
    return tmp_path


def _enter(cluster: Cluster, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, cluster.environment[name])


@pytest.fixture
def jobs(home: Path, cluster: Cluster) -> Jobs:
    return Jobs(connect(cluster.address))


def _token(cluster: Cluster) -> str:
    return (cluster.directory / "token").read_text()


def _start(jobs: Jobs, name: str, code: str) -> str:
    """Runs Python as a job."""
    Path(f"{name}.py").write_text(code)
    return jobs.submit(
        f"{name}-{time.time_ns()}",
        f"python {name}.py",
        working_dir=".",
        notes={"resume": f"resume {name}", "run_dir": "/shared"},
        environment={},
    )


def test_everything_listens_on_loopback_and_secrets_are_the_users(cluster: Cluster) -> None:
    processes = cluster.processes()
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    assert cluster.directory.stat().st_mode & 0o777 == 0o700
    assert (cluster.directory / "token").stat().st_mode & 0o777 == 0o600
    token = _token(cluster)
    assert len(token) == 64
    assert not any(token in " ".join(process.cmdline()) for process in processes)
    again = cluster.script("up")
    assert again.returncode == 1
    assert "runs already" in again.stderr


@pytest.mark.slow
def test_a_search_that_is_refused_returns_2(home: Path, command, cluster: Cluster) -> None:
    (home / ".gitignore").write_text("runs/\n")
    run_dir = home / "runs" / "none"
    answer = command("submit", "tiny.yaml", "--run-dir", run_dir, "--resume", "--follow")
    assert answer.code == 2
    assert f"upload: 2 files, {len(EXPERIMENT) + 6} B, from {home}" in answer.out
    assert re.search(r"^ +6 B  \.gitignore$", answer.out, re.MULTILINE)
    assert f"command: gsfl-tune search tiny.yaml --run-dir {run_dir} --resume" in answer.out
    [name] = re.findall(r"^job: (tiny-\w+)$", answer.out, re.MULTILINE)
    assert f"{name}: failed, exit code 2" in answer.out
    resume = f"gsfl-tune submit tiny.yaml --address {cluster.address} --run-dir {run_dir} --resume"
    assert resume in answer.out

    shown = command("status")
    assert shown.code == 0
    assert re.search(rf"^{name} +FAILED \(2\) .* {run_dir}$", shown.out, re.MULTILINE)
    log = command("logs", name).out
    assert f"Running entrypoint for job {name}" in log
    # What the search said is what was followed, once.
    assert log in answer.out
    assert command("logs", name, "--follow").code == 2
    assert _token(cluster) not in answer.out + answer.err + shown.out + log


def test_exit_codes_of_jobs(jobs: Jobs, command) -> None:
    ends = [
        ("print('done')", 0, "succeeded, exit code 0"),
        ("print('to resume'); raise SystemExit(3)", 3, "continue with:\n  resume ended2"),
        ("import os; os.kill(os.getpid(), 9)", 1, "the driver was killed by signal 9"),
    ]
    names = [_start(jobs, f"ended{number}", end[0]) for number, end in enumerate(ends, 1)]
    for name, (_, code, said) in zip(names, ends, strict=True):
        answer = command("logs", name, "--follow")
        assert answer.code == code
        assert said in answer.out + answer.err


@pytest.mark.slow
def test_stopping_waits_until_the_state_is_saved(jobs: Jobs, command) -> None:
    # Takes longer than the 3 s that Ray itself waits for.
    saving = """
import signal, sys, time
def save(number, frame):
    time.sleep(5)
    print("saved", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, save)
print("running", flush=True)
signal.pause()
"""
    name = _start(jobs, "saving", saving)
    wait_until(lambda: "\nrunning" in jobs.log(name), "the job runs", every=0.2)
    assert jobs.choose(None, running=True).name == name
    answer = command("stop")
    assert answer.code == 0
    assert f"{name}: stopped, exit code 3" in answer.out
    assert "continue with:\n  resume saving" in answer.out
    assert jobs.log(name).endswith("saved\n")
    assert "has already ended" in command("stop", name).out
    assert command("logs", name, "--follow").code == 3


@pytest.mark.slow
def test_following_survives_a_broken_connection(
    jobs: Jobs, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Not in the directory of the user, which is uploaded.
    broken = tmp_path_factory.mktemp("pipe") / "broken"
    os.mkfifo(broken)
    # Waits in the middle until the connection is broken.
    counting = f"""
for number in range(8):
    print("line", number, flush=True)
    if number == 2:
        open({str(broken)!r}).read()
"""
    name = _start(jobs, "counting", counting)
    proxy = _Proxy(int(cluster.address.rsplit(":", 1)[1]))
    followed: list[str] = []

    def write(text: str) -> None:
        followed.append(text)
        if "line 2" in "".join(followed) and not proxy.cuts:
            proxy.cut()
            broken.write_text("")

    ended = Jobs(connect(f"http://127.0.0.1:{proxy.port}")).follow(name, write)
    assert proxy.cuts == 1
    assert ended.status == "SUCCEEDED"
    assert "".join(followed) == jobs.log(name)


def test_what_is_no_job(home: Path, command) -> None:
    answer = command("logs", "no-such-job")
    assert answer.code == 2
    assert "found no job no-such-job" in answer.err
    assert "found no running search" in command("stop").err


def test_tokens_that_do_not_work(home: Path, cluster: Cluster, command, monkeypatch) -> None:
    def refused() -> str:
        answer = command("status", "--address", cluster.address)
        assert answer.code == 2
        assert len(answer.err.splitlines()) == 1
        assert _token(cluster) not in answer.out + answer.err
        return answer.err

    file = home / "token"
    file.write_text(_token(cluster))
    file.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    assert f"chmod 600 {file}" in refused()
    file.chmod(0o600)
    assert command("status").code == 0
    file.write_text("wrong" * 10)
    assert "does not accept the token" in refused()
    file.unlink()
    assert f"{file} (RAY_AUTH_TOKEN_PATH) does not exist" in refused()


def test_nothing_is_started_when_something_is_wrong(home: Path, command, jobs: Jobs) -> None:
    before = len(jobs.all())
    assert command("submit", "tiny.yaml", "--run-dir", "runs/x").code == 2
    assert command("submit", "tiny.yaml", "--run-dir", "/r", "--set", "search.trails=1").code == 2
    (home / ".rayignore").write_text("*.yaml\n")
    assert "left out" in command("submit", "tiny.yaml", "--run-dir", "/r").err
    (home / ".rayignore").unlink()
    nobody = f"http://127.0.0.1:{free_port()}"
    answer = command("submit", "tiny.yaml", "--run-dir", "/r", "--address", nobody)
    assert answer.code == 2
    assert "Connection refused" in answer.err
    assert "Traceback" not in answer.err
    assert "--run-dir is missing" in command("submit", "tiny.yaml").err
    assert "absolute path" in command("submit", "tiny.yaml", "--set", "storage=runs").err
    checked = command("submit", "tiny.yaml", "--run-dir", "/r", "--dry-run")
    assert checked.code == 0
    changed = command(
        "submit", "tiny.yaml", "--run-dir", "/r", "--dry-run", "--resume", "--change-space",
        "--time", "40m", "--trials", "9",
    )  # fmt: skip
    assert changed.code == 0
    expected = "--change-space --resume --set search.trials=9 --set search.time_budget=40m"
    assert expected in changed.out
    alone = command("submit", "tiny.yaml", "--run-dir", "/r", "--dry-run", "--change-space")
    assert alone.code == 2
    assert "--change-space: found without --resume" in alone.err
    stored = command("submit", "tiny.yaml", "--set", "storage=s3://bucket/runs", "--dry-run")
    assert stored.code == 0
    assert "--set storage=s3://bucket/runs" in stored.out
    assert len(jobs.all()) == before


class _Proxy:
    """Passes TCP connections on, until they are cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._sockets: list[socket.socket] = []
        self.cuts = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.cuts += 1
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def _accept(self) -> None:
        while True:
            near, _ = self._server.accept()
            far = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_search_on_two_raylets_is_stopped_and_resumed(tmp_path, monkeypatch, command) -> None:
    pair = Cluster(nodes=2)
    try:
        _enter(pair, tmp_path, monkeypatch)
        (tmp_path / ".rayignore").write_text("runs\n")
        run_dir = tmp_path / "runs" / "tiny"
        options = ["--run-dir", run_dir, "--set", "search.trials=40"]
        assert command("submit", "tiny.yaml", *options).code == 0
        wait_until(
            lambda: list(run_dir.glob("trials/*/epochs.jsonl")), "a trial has trained", timeout=240
        )
        wait_until(
            lambda: len(ended_trials(run_dir)) >= 4,
            "four trials have ended",
            timeout=600,
            every=0.2,
        )
        stopped = command("stop")
        assert stopped.code == 0
        assert "stopped, exit code 3" in stopped.out
        kept = ended_trials(run_dir)
        assert 4 <= len(kept) < 40
        assert not (run_dir / "results.json").exists()

        options[-1] = f"search.trials={len(kept) + 4}"
        resumed = command("submit", "tiny.yaml", *options, "--resume", "--follow")
        assert resumed.code == 0, resumed.out + resumed.err
        after = ended_trials(run_dir)
        assert len(after) == len(kept) + 4
        assert {number: after[number] for number in kept} == kept
        assert json.loads((run_dir / "results.json").read_text())
        raylets = [process for process in pair.processes() if process.name() == "raylet"]
        assert len(raylets) == 2
    finally:
        pair.close()
    assert not pair.directory.exists()
