from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gsfl_tune.cluster import Token, find_token
from gsfl_tune.cluster.token import make_token
from gsfl_tune.experiment.errors import UserError

SECRET = "0123456789abcdef-secret"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


def test_the_order_is_rays_own(tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other"
    other.write_text("named")
    other.chmod(0o600)
    named = {"RAY_AUTH_TOKEN_PATH": str(other)}
    assert find_token({}, tmp_path).value == SECRET
    assert find_token(named, tmp_path).value == "named"
    assert find_token({**named, "RAY_AUTH_TOKEN": "direct"}, tmp_path).value == "direct"


def test_ray_finds_the_same_token(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._raylet import AuthenticationTokenLoader

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()
    try:
        assert loader.get_raw_token(ignore_auth_mode=True) == find_token().value
    finally:
        loader.reset_cache()


def test_a_missing_token_says_where_it_was_looked_for_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"auth_token does not exist; copy the head's: .*umask 077"):
        find_token({}, tmp_path)
    with pytest.raises(UserError, match=r"nowhere \(RAY_AUTH_TOKEN_PATH\) does not exist"):
        find_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "nowhere")}, tmp_path)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606, 0o620])
def test_a_token_that_others_can_read_or_change_is_refused(
    tmp_path: Path, file: Path, mode: int
) -> None:
    file.chmod(mode)
    with pytest.raises(UserError, match=rf"found mode {mode:04o}.*chmod 600 {file}") as caught:
        find_token({}, tmp_path)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("content", ["", " \n", "two words", "línea", "a\nb"])
def test_what_is_no_token_is_refused_unseen(tmp_path: Path, file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(UserError, match=r"empty|not a token") as caught:
        find_token({}, tmp_path)
    assert "words" not in str(caught.value)


def test_a_token_is_never_shown() -> None:
    token = Token(SECRET, "RAY_AUTH_TOKEN")
    shown = f"{token} {token!r} {token.refused('http://head:8265')}"
    assert SECRET not in shown
    assert "http://head:8265: the cluster does not accept the token from RAY_AUTH_TOKEN" in shown


def test_a_local_ray_leaves_a_token_that_only_its_owner_can_read(tmp_path: Path) -> None:
    program = """
import os
os.umask(0o022)
from gsfl_tune.cluster import ray_session
with ray_session(cpus=1):
    import ray
    print("worked", ray.get(ray.remote(lambda: 41 + 1).remote()))
"""
    environment = {name: text for name, text in os.environ.items() if "RAY_A" not in name}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "worked 42" in done.stdout, done.stderr
    # What `gsfl-tune submit` reads.
    assert find_token({}, tmp_path).value not in done.stdout + done.stderr
    folder = tmp_path / ".ray"
    assert [path.name for path in folder.iterdir()] == ["auth_token"]


def test_a_token_is_made_only_where_ray_would_make_one(tmp_path: Path, file: Path) -> None:
    make_token({}, tmp_path)
    assert find_token({}, tmp_path).value == SECRET
    file.write_text(" \n")
    file.chmod(0o644)
    make_token({}, tmp_path)
    assert len(find_token({}, tmp_path).value) == 64
    for number, variables in enumerate(
        [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "x"}, {"RAY_AUTH_TOKEN_PATH": "y"}]
    ):
        home = tmp_path / str(number)
        make_token(variables, home)
        assert not home.exists()


def test_a_home_that_cannot_be_written_is_left_to_ray(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("")
    make_token({}, home)
    assert home.read_text() == ""
