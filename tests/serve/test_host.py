"""Names that a server on this machine answers to: a web page may give its own name our address."""

from __future__ import annotations

import socket

import pytest

from tests.serve.conftest import jpeg

OTHERS = ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"]


@pytest.mark.parametrize("host", [*OTHERS, "", "[2001:db8::1]:8000", "192.0.2.7"])
def test_a_foreign_name_reads_nothing(looks, host):
    for method, path, body in (
        ("POST", "/neighbours?count=100", jpeg()),
        ("POST", "/predict", jpeg()),
        ("GET", "/", None),
        ("GET", "/static/page.js", None),
    ):
        answer = looks.send(method, path, body, Host=host)
        assert (answer.status, answer.json["error"]) == (421, "wrong_host")
        assert answer.json["reason"].startswith(f"Host is {host!r}, allowed are 127.0.0.1, ")
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("host", ["localhost", "LocalHost:{}", "127.0.0.1:{}", "[::1]", "[::1]:1"])
def test_names_of_this_machine_are_answered_with_any_port(looks, host):
    """A port that is forwarded is another one on the browser's side."""
    answer = looks.send("POST", "/neighbours", jpeg(), Host=host.format(looks.port))
    assert answer.status == 200
    assert answer.json["neighbours"]


def test_no_browser_leaves_out_the_name(looks):
    with socket.create_connection(("127.0.0.1", looks.port), 60) as client:
        client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert client.makefile("rb").readline().split()[1] == b"200"


def test_refusals_are_counted_and_a_large_body_gets_its_answer(looks):
    route = "gsfl_tune_requests_total{path=/predict,status=421}"
    before = looks.metrics().get(route, 0)
    assert looks.send("POST", "/predict", b"x" * 5_000_000, Host="evil.example").status == 421
    assert looks.metrics()[route] == before + 1
    assert looks.predict(jpeg()).status == 200


def test_the_name_that_was_given_is_answered_to(start, served_bundle):
    with start(served_bundle, "--host", "127.0.0.9") as server:
        server.host = "127.0.0.9"
        assert server.get("/health").status == 200
        assert server.send("GET", "/health", Host="localhost").status == 200
        assert server.send("GET", "/health", Host="127.0.0.8").status == 421


def test_a_server_for_other_machines_has_names_that_it_does_not_know(start, served_bundle):
    with start(served_bundle, "--host", "0.0.0.0") as server:
        assert server.send("GET", "/health", Host="birds.example").status == 200
