"""A process that has imported what commands need, and forks for each of them.

Most of the time of a short command goes into importing torch and timm. Tests that ask what a
command does, and not how it starts, run it through `run`: a process of its own with its own
environment, folder, output and exit code, as after ``python -m gsfl_tune``. Tests of imports,
signals and kills start a fresh interpreter.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn


def run(
    arguments: Sequence[object],
    *,
    code: str | None = None,
    input: str = "",
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 400,
) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m gsfl_tune ARGUMENTS``, or ``python -c CODE ARGUMENTS``.

    It is as `subprocess.run` with text that is captured.

    Raises:
        subprocess.TimeoutExpired: When it takes longer; it is killed.
    """
    temporary = tempfile.TemporaryFile
    with temporary() as given, temporary() as out, temporary() as err:
        given.write(input.encode())
        given.seek(0)
        ends = [given.fileno(), out.fileno(), err.fileno()]
        process = Started(arguments, ends, code=code, cwd=cwd, env=env)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            # As text mode does: a terminal's carriage returns are line ends.
            texts.append(file.read().decode().replace("\r\n", "\n").replace("\r", "\n"))
    return subprocess.CompletedProcess(process.args, process.wait(), *texts)


def start(
    arguments: Sequence[object],
    *,
    code: str | None = None,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
) -> Started:
    """Begins what `run` runs; as `subprocess.Popen` with pipes of text."""
    given, out, err = os.pipe(), os.pipe(), os.pipe()
    theirs = [given[0], out[1], err[1]]
    try:
        process = Started(arguments, theirs, code=code, cwd=cwd, env=env)
    finally:
        for end in theirs:
            os.close(end)
    process.stdin = os.fdopen(given[1], "w")
    process.stdout, process.stderr = os.fdopen(out[0]), os.fdopen(err[0])
    return process


class Started:
    """A command that runs; the part of `subprocess.Popen` that tests use."""

    stdin: IO[str]
    stdout: IO[str]
    stderr: IO[str]

    def __init__(
        self,
        arguments: Sequence[object],
        files: list[int],
        *,
        code: str | None,
        cwd: Path | str | None,
        env: Mapping[str, str] | None,
    ) -> None:
        self.args = [str(argument) for argument in arguments]
        self.returncode: int | None = None
        request = {
            "arguments": self.args,
            "code": code,
            "cwd": str(cwd or os.getcwd()),
            "env": dict(env or os.environ),
        }
        self._socket, theirs = socket.socketpair()
        with theirs:
            _interpreter().send(request, [*files, theirs.fileno()])
        self._answers = self._socket.makefile()
        self.pid = int(self._answers.readline())

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._socket], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._socket.close()
        return self.returncode

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        with suppress(BrokenPipeError):
            self.stdin.close()
        with ThreadPoolExecutor(2) as pool:
            texts = [pool.submit(file.read) for file in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            out, err = (text.result() for text in texts)
        return out, err


class _Interpreter:
    """The process that forks; it ends with the one that started it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "from tests.warm import serve; serve()",
                    str(theirs.fileno()),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=Path(__file__).parents[1],
            )
        atexit.register(self.close)

    def send(self, request: dict[str, Any], files: list[int]) -> None:
        socket.send_fds(self._socket, [json.dumps(request).encode() + b"\n"], files)

    def close(self) -> None:
        self._socket.close()
        self._process.wait(timeout=60)


@cache
def _interpreter() -> _Interpreter:
    return _Interpreter()


def serve() -> None:
    """Forks for every request, and says how each child has ended."""
    # None of these starts a thread of Python's, which a fork would lose.
    import uvicorn  # noqa: F401

    import gsfl_tune.evidence
    import gsfl_tune.export
    import gsfl_tune.pipeline
    import gsfl_tune.report
    import gsfl_tune.training  # noqa: F401

    # Else every child copies the pages of all objects at its first collection.
    gc.freeze()
    connection = socket.socket(fileno=int(sys.argv[1]))
    woken, wakes = socket.socketpair()
    for end in (woken, wakes):
        end.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    while True:
        ready = select.select([connection, woken], [], [])[0]
        if woken in ready:
            woken.recv(1 << 10)
            _reap(running)
        if connection not in ready:
            continue
        data, files, _, _ = socket.recv_fds(connection, 1 << 20, 4)
        if not data:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            return
        while not data.endswith(b"\n"):
            data += connection.recv(1 << 20)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (connection, woken, wakes, *running.values()):
                end.close()
            os.close(files.pop())
            _become(json.loads(data), files)
        running[pid] = socket.socket(fileno=files.pop())
        for file in files:
            os.close(file)
        running[pid].sendall(b"%d\n" % pid)


def _reap(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with running.pop(pid) as asker, suppress(OSError):  # nobody may be there to hear it
            asker.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _become(request: dict[str, Any], files: list[int]) -> NoReturn:
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    # A shell that started the tests in the background has made all their processes ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    more = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [request["cwd"], *filter(None, more)]
    if any(more):  # there may be extensions, which this package asks for when it is imported
        for name in [name for name in sys.modules if name.partition(".")[0] == "gsfl_tune"]:
            del sys.modules[name]
    code: object = 0
    try:
        if request["code"] is None:
            sys.argv = ["gsfl_tune", *request["arguments"]]
            runpy.run_module("gsfl_tune", run_name="__main__", alter_sys=True)
        else:
            sys.argv = ["-c", *request["arguments"]]
            exec(request["code"], {"__name__": "__main__"})
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    # What an interpreter does at its end, but for taking every module apart, which takes a second.
    for end in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):
        end()
    os._exit(code or 0)
