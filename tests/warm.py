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
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn


def run(
    arguments: Sequence[object],
    *,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 400,
) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m gsfl_tune ARGUMENTS``; as `subprocess.run` with text that is captured.

    Raises:
        subprocess.TimeoutExpired: When it takes longer; it is killed.
    """
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        request = {
            "arguments": words,
            "cwd": str(cwd or os.getcwd()),
            "env": dict(env or os.environ),
        }
        code = _interpreter().ask(request, [out.fileno(), err.fileno()], timeout)
        texts = []
        for file in (out, err):
            file.seek(0)
            # As text mode does: a terminal's carriage returns are line ends.
            texts.append(file.read().decode().replace("\r\n", "\n").replace("\r", "\n"))
    return subprocess.CompletedProcess(words, code, *texts)


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
        self._answers = self._socket.makefile()
        atexit.register(self.close)

    def ask(self, request: dict[str, Any], files: list[int], timeout: float) -> int:
        socket.send_fds(self._socket, [json.dumps(request).encode() + b"\n"], files)
        pid = int(self._answers.readline())
        self._socket.settimeout(timeout)
        try:
            return int(self._answers.readline())
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            self.close()
            _interpreter.cache_clear()
            raise subprocess.TimeoutExpired(request["arguments"], timeout) from None
        finally:
            self._socket.settimeout(None)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # `_answers` keeps it open
        self._socket.close()
        self._process.wait(timeout=60)


@cache
def _interpreter() -> _Interpreter:
    return _Interpreter()


def serve() -> None:
    """Forks for every request."""
    import timm  # noqa: F401

    import gsfl_tune.evidence
    import gsfl_tune.export
    import gsfl_tune.report
    import gsfl_tune.training  # noqa: F401

    # Else every child copies the pages of all objects at its first collection.
    gc.freeze()
    connection = socket.socket(fileno=int(sys.argv[1]))
    while True:
        data, files, _, _ = socket.recv_fds(connection, 1 << 20, 2)
        if not data:
            return
        while not data.endswith(b"\n"):
            data += connection.recv(1 << 20)
        pid = os.fork()
        if pid == 0:
            connection.close()
            _become(json.loads(data), files)
        for file in files:
            os.close(file)
        connection.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _become(request: dict[str, Any], files: list[int]) -> NoReturn:
    for target, file in enumerate(files, start=1):
        os.dup2(file, target)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[0] = request["cwd"]
    sys.argv = ["gsfl_tune", *request["arguments"]]
    code: object = 0
    try:
        runpy.run_module("gsfl_tune", run_name="__main__", alter_sys=True)
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
