"""``gsfl-tune serve``: what it refuses. What it answers is in ``tests/serve``."""

from __future__ import annotations

import socket

import pytest


def test_a_port_that_is_taken_is_bad_input(command, bundle_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answer = command("serve", bundle_path, "--port", port)
    assert answer.code == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in answer.err


def test_what_is_no_bundle_is_bad_input(command, tmp_path):
    answer = command("serve", tmp_path / "nothing", "--port", 0)
    assert answer.code == 2
    assert "no such bundle" in answer.err


def test_a_host_that_is_not_ours_is_bad_input(command, bundle_path):
    answer = command("serve", bundle_path, "--host", "192.0.2.1", "--port", 0)
    assert answer.code == 2
    assert "cannot listen on 192.0.2.1" in answer.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-bytes", "many"],
        ["--max-bytes", "0"],
        ["--queue", "0"],
        ["--port", "70000"],
        ["--max-wait", "-1"],
    ],
)
def test_senseless_limits_are_bad_input(command, bundle_path, arguments):
    with pytest.raises(SystemExit) as stopped:
        command("serve", bundle_path, *arguments)
    assert stopped.value.code == 2


def test_more_pixels_than_pillow_opens_are_bad_input(command, bundle_path):
    answer = command("serve", bundle_path, "--max-pixels", 10**9)
    assert answer.code == 2
    assert "--max-pixels is 1000000000, allowed are 1 to" in answer.err
