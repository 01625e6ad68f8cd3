"""Images behind HTTP: what is refused, and what is said then."""

from __future__ import annotations

import threading

import pytest

from gsfl_tune.data.fetch import FetchError, fetch
from tests.http_server import Server

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def server():
    with Server() as found:
        found.files["/a"] = CONTENT
        yield found


def test_what_is_there_comes(server):
    assert fetch(server.url("/a")) == CONTENT
    server.files["/with%20a%20space"] = b"x"
    assert fetch(server.url("/with a space")) == b"x"


def test_so_many_redirects_are_followed(server):
    for number in range(1, 6):
        server.redirects[f"/{number}"] = f"/{number - 1}" if number > 1 else "/a"
    assert fetch(server.url("/3"), redirects=3) == CONTENT
    with pytest.raises(FetchError, match="more than 3 redirects"):
        fetch(server.url("/4"), redirects=3)
    server.redirects["/again"] = "/again"
    with pytest.raises(FetchError, match="one that leads to itself"):
        fetch(server.url("/again"))
    server.redirects["/file"] = "file:///etc/hostname"
    with pytest.raises(FetchError, match="redirected to where it is not followed"):
        fetch(server.url("/file"))


def test_too_much_is_not_read(server):
    with pytest.raises(FetchError, match="found 256,000 bytes, allowed at most 1,000"):
        fetch(server.url("/a"), max_bytes=1000)
    sent = threading.Event()

    def endless(request):
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                request.wfile.write(bytes(65536))
        except OSError:
            sent.set()  # the reader has gone

    server.answers["/endless"] = endless
    with pytest.raises(FetchError, match="more bytes than the 100,000 that are allowed"):
        fetch(server.url("/endless"), max_bytes=100_000)
    assert sent.wait(30)


def test_what_ends_early_is_not_taken(server):
    def short(request):
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(bytes(400))
        request.close_connection = True

    server.answers["/short"] = short
    with pytest.raises(FetchError, match="ended after 400 of 1,000 bytes"):
        fetch(server.url("/short"))


def test_a_server_that_is_slow_is_left(server):
    over = threading.Event()

    def silent(request):
        over.wait(60)

    def dripping(request):
        request.send_response(200)
        request.end_headers()
        try:
            while not over.wait(0.05):
                request.wfile.write(b"x")
        except OSError:
            pass

    server.answers |= {"/silent": silent, "/dripping": dripping}
    try:
        for path in ("/silent", "/dripping"):
            with pytest.raises(FetchError, match=r"was not there within 0\.5 s"):
                fetch(server.url(path), seconds=0.5)
    finally:
        over.set()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/hostname", "allowed are http:// and https://"),
        ("ftp://127.0.0.1/a", "allowed are http:// and https://"),
        ("s3://bucket/a", "allowed are http:// and https://"),
        ("http:///a", "allowed are http:// and https://"),
        ("http://me:secret@127.0.0.1/a", "a user name in the URL"),
        ("http://127.0.0.1:1/a", "the server cannot be reached"),
        ("http://127.0.0.1:port/a", "the server did not answer as it should"),
    ],
)
def test_other_urls_are_refused(url, reason):
    with pytest.raises(FetchError, match=reason):
        fetch(url)


def test_what_the_server_answers_is_said(server):
    with pytest.raises(FetchError, match="the server answers 404 Not Found"):
        fetch(server.url("/none"))

    def nonsense(request):
        request.wfile.write(b"hello\r\n\r\n")
        request.close_connection = True

    server.answers["/nonsense"] = nonsense
    with pytest.raises(FetchError, match="the server did not answer as it should"):
        fetch(server.url("/nonsense"))
