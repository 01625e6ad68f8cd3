from __future__ import annotations

from pathlib import Path

import pytest

from gsfl_tune.cluster import Token, find_token
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
    with pytest.raises(UserError, match=r"empty|no token") as caught:
        find_token({}, tmp_path)
    assert "words" not in str(caught.value)


def test_a_token_is_never_shown() -> None:
    token = Token(SECRET, "RAY_AUTH_TOKEN")
    shown = f"{token} {token!r} {token.refused('http://head:8265')}"
    assert SECRET not in shown
    assert "http://head:8265: the cluster does not accept the token from RAY_AUTH_TOKEN" in shown
