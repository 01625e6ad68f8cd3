"""HTTP server of a run's page, which is rendered again when the run's files change."""

from __future__ import annotations

import hashlib
import json
import os
import socketserver
import threading
import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET6

from gsfl_tune.activity import duration
from gsfl_tune.experiment import UserError
from gsfl_tune.experiment.errors import first_line
from gsfl_tune.hosts import is_loopback
from gsfl_tune.report.files import CurveReader, read_run
from gsfl_tune.report.page import render
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.layout import EPOCHS_FILE
from gsfl_tune.run.running_estimate import read_estimate

# Renders the page at most once in this time, and for at most a tenth of the time: the search
# needs the cores.
_SECONDS_BETWEEN_PAGES = 2.0
_PAGE_FACTOR = 10.0
_LOCAL = {"localhost", "127.0.0.1", "::1"}


def wait_for_run(run: str | Path, look_seconds: float = 0.5) -> None:
    """Waits until a search has begun in a run directory.

    Args:
        run: The future run directory.
        look_seconds: Seconds between checks.

    Raises:
        UserError: If the directory holds something else.
    """
    directory = RunDirectory(run)
    while not (directory.experiment_file.is_file() or directory.results_file.is_file()):
        try:
            names = os.listdir(directory.path)
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise UserError(f"{run}: not a run directory ({error.strerror})") from error
        if not _may_begin(directory, names):
            # The search may have begun since the first check.
            if directory.experiment_file.is_file():
                return
            raise UserError(
                f"{run}: not a run directory (there is no {directory.experiment_file.name} in it)"
            )
        time.sleep(look_seconds)


def _may_begin(directory: RunDirectory, names: Iterable[str]) -> bool:
    """Returns whether a directory without an experiment holds only what a driver writes before."""
    if {directory.lock_file.name, directory.journal.name} <= set(names):
        # A driver on a new machine fetches its run from a storage: the journal, then the rest.
        return True
    # While a driver checks and measures, the names of its further files begin with a dot.
    early = {directory.plan_file.name, directory.starter_file.name}
    return all(name.startswith(".") or name in early for name in names)


class LivePage:
    """Holds the page of a run as of its last change; safe to use from several threads.

    Args:
        run: The run directory.

    Raises:
        UserError: If it is not a run directory, or its files are damaged.
    """

    def __init__(self, run: str | Path) -> None:
        self._run = RunDirectory(run)
        self._curves = CurveReader()
        self._lock = threading.Lock()
        self._due = 0.0
        self._page = b""
        self._version = ""
        self._problem: str | None = None
        self._make(self._version_of_files())

    def look(self) -> tuple[str, str | None]:
        """Renders the page again if files changed; returns its version and any problem."""
        with self._lock:
            now = self._version_of_files()
            if now != self._version and time.monotonic() >= self._due:
                try:
                    self._make(now)
                    self._problem = None
                except (UserError, OSError) as error:
                    # Keep the last page: the next read may succeed.
                    self._problem = first_line(error)
            return self._version, self._problem

    def left(self) -> str | None:
        """Returns what the driver does and how long it still takes; None without a driver."""
        estimate = read_estimate(self._run)
        if estimate is None:
            return None
        of = "" if estimate.total is None else f"/{estimate.total}"
        text = f"{estimate.phase} {estimate.done}{of}"
        left = estimate.left
        return text if left is None else f"{text}, about {duration(left)} left"

    def page(self) -> bytes:
        """Returns the current page in UTF-8."""
        self.look()
        return self._page

    def _make(self, version: str) -> None:
        started = time.monotonic()
        try:
            files = read_run(self._run.path, self._curves)
            self._page = render(files, live=True, version_of_run=version).encode()
            self._version = version
        finally:
            # Reading damaged files takes time too.
            taken = time.monotonic() - started
            self._due = time.monotonic() + max(_SECONDS_BETWEEN_PAGES, _PAGE_FACTOR * taken)

    def _version_of_files(self) -> str:
        """Returns a hash that changes with the files of the page."""
        state = hashlib.blake2b(digest_size=8)
        for path in self._sources():
            try:
                stat = os.stat(path)
            except OSError:
                continue
            state.update(f"{path}|{stat.st_mtime_ns}|{stat.st_size}\n".encode())
        return state.hexdigest()

    def _sources(self) -> Iterator[str]:
        run = self._run
        own = (
            run.experiment_file, run.manifest_file, run.data_file, run.trials_parquet,
            run.results_file, run.evidence_file, run.utilisation_file, run.workers_file,
        )  # fmt: skip
        yield from map(str, own)
        for folder in (run.trials("search"), run.trials("control")):
            try:
                names = sorted(os.listdir(folder))
            except OSError:
                continue
            yield from (f"{folder}/{name}/{EPOCHS_FILE}" for name in names)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "gsfl-tune"
    sys_version = ""
    timeout = 20  # a silent client must not keep its thread

    def do_GET(self) -> None:
        """Answers ``/`` and ``/version``."""
        if not self._is_for_us():
            # Prevents DNS rebinding: a foreign page could use a name that resolves to here.
            self._answer(HTTPStatus.FORBIDDEN, b"this server answers to its own address only\n")
            return
        path = self.path.partition("?")[0]
        if path == "/":
            self._answer(HTTPStatus.OK, self.server.live.page(), "text/html; charset=utf-8")
        elif path == "/version":
            version, problem = self.server.live.look()
            told = {"version": version, "problem": problem, "left": self.server.live.left()}
            body = json.dumps(told).encode()
            self._answer(HTTPStatus.OK, body, "application/json")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"there is nothing here\n")

    do_HEAD = do_GET  # noqa: N815

    def _answer(
        self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8"
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _is_for_us(self) -> bool:
        if self.server.public:
            return True
        name = self.headers.get("Host", "")
        host = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        return host in _LOCAL or host == self.server.host

    def log_message(self, format: str, *args: object) -> None:
        """Logs no requests."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, live: LivePage, host: str, port: int) -> None:
        self.live = live
        self.host = host
        self.public = not is_loopback(host)
        if ":" in host:
            self.address_family = AF_INET6
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer would ask DNS for the name of this machine, which may take long.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores a browser that closes the connection during an answer."""


class WatchServer:
    """Serves the page of a run, which polls for changes while it is open.

    Args:
        run: The run directory.
        host: Address to listen on.
        port: Port; 0 takes any free port.

    Raises:
        UserError: If there is no such run, or the address cannot be used.
    """

    def __init__(self, run: str | Path, host: str = "127.0.0.1", port: int = 0) -> None:
        live = LivePage(run)
        try:
            self._server = _Server(live, host, port)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"{host}:{port}: cannot listen there ({reason}); choose another port with --port "
                "(0: any free port) or another address of this machine with --host"
            ) from error

    @property
    def url(self) -> str:
        """Returns the URL of the page."""
        host = self._server.host
        if host in ("0.0.0.0", "::"):
            host = "127.0.0.1"
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.server_port}/"

    @property
    def public(self) -> bool:
        """Returns whether other machines can read the page."""
        return self._server.public

    def serve(self) -> None:
        """Answers requests until `close` is called, or KeyboardInterrupt."""
        self._server.serve_forever(poll_interval=0.2)

    def close(self) -> None:
        """Stops `serve` from another thread and releases the port."""
        self._server.shutdown()
        self._server.server_close()
