"""Whom a token is sent to, and what is said of addresses that do not work."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray

from gsfl_tune.cluster import connect
from gsfl_tune.cluster.jobs import connection
from gsfl_tune.cluster.jobs.connection import dashboard_address
from gsfl_tune.experiment.errors import UserError

VERSION = json.dumps({"version": "4", "ray_version": ray.__version__})
MISSING = "Unauthorized: Missing authentication token"
SECRET = "a-secret-of-the-cluster"


@pytest.fixture(autouse=True)
def _token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET)
    file.chmod(0o600)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    for name in ("RAY_AUTH_TOKEN", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


class Server:
    """Answers every request alike, and keeps the headers that it got."""

    def __init__(self, answer: Callable[[str | None], tuple[int, str]]) -> None:
        self.tokens: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                token = self.headers.get("Authorization")
                server.tokens.append(token)
                status, text = answer(token)
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", f"http://127.0.0.1:{server.port}/other")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(answer: Callable[[str | None], tuple[int, str]]) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_a_cluster_that_asks_gets_the_token(serve) -> None:
    server = serve(lambda token: (200, VERSION) if token == f"Bearer {SECRET}" else (401, MISSING))
    connection = connect(server.address)
    assert server.tokens == [None, f"Bearer {SECRET}"]
    assert connection.version == ray.__version__
    assert connection.warnings == []
    assert SECRET not in repr(connection)


def test_a_cluster_that_does_not_ask_gets_none_and_is_warned_of(serve) -> None:
    server = serve(lambda token: (200, VERSION))
    connection = connect(server.address)
    assert server.tokens == [None]
    assert connection.token is None
    assert "whoever reaches it can run commands" in connection.warnings[0]


@pytest.mark.parametrize(
    ("status", "text"), [(401, "log in please"), (404, "not found"), (302, ""), (200, "<html>")]
)
def test_what_is_no_dashboard_never_sees_the_token(serve, status: int, text: str) -> None:
    server = serve(lambda token: (status, text))
    with pytest.raises(UserError, match=rf"status {status}\), but it is not a Ray dashboard"):
        connect(server.address)
    assert server.tokens == [None]


def test_a_wrong_token_is_explained_by_its_source(serve) -> None:
    server = serve(lambda token: (403, "Forbidden") if token else (401, MISSING))
    with pytest.raises(
        UserError, match=r"does not accept the token from .*RAY_AUTH_TOKEN_PATH"
    ) as e:
        connect(server.address)
    assert SECRET not in str(e.value)


def test_another_version_is_said(serve) -> None:
    server = serve(lambda token: (200, json.dumps({"ray_version": "2.9.0"})))
    assert any("2.9.0 there" in warning for warning in connect(server.address).warnings)


def test_what_takes_a_connection_and_never_answers_is_told(monkeypatch) -> None:
    monkeypatch.setattr(connection, "_ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match="takes the connection and does not answer"):
            connect(address)


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=r"no Ray dashboard answers \(Connection refused\).*ssh -N"):
        connect(f"http://127.0.0.1:{port}")
    with pytest.raises(UserError, match=r"Name or service not known|name is not known"):
        connect("http://no-such-host.invalid:8265")


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("head:8265", "http://head:8265"),
        ("http://head:8265/", "http://head:8265"),
        ("https://ray.example.org", "https://ray.example.org"),
    ],
)
def test_addresses(given: str, address: str) -> None:
    assert dashboard_address(given) == address


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (None, "--address is missing"),
        ("ray://head:10001", "no address of a dashboard"),
        ("head:6379", "port 6379 is not the dashboard's"),
        ("http://user:word@head:8265", "found a password"),
        ("http://head:port", "no address of a dashboard"),
        ("", "no address of a dashboard"),
    ],
)
def test_what_is_no_address(given: str | None, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        dashboard_address(given)
    assert "word" not in str(caught.value).replace("password", "")


def test_addresses_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(UserError, match="--address is missing"):
        dashboard_address(None)
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    assert dashboard_address(None) == "http://head:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://other:8265")
    assert dashboard_address(None) == "http://other:8265"
    assert dashboard_address("http://given:1") == "http://given:1"
