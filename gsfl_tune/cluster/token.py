"""The token of a Ray cluster: where it is found, and what is wrong with it. Never printed."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gsfl_tune.experiment.errors import UserError

VALUE_VARIABLE = "RAY_AUTH_TOKEN"
PATH_VARIABLE = "RAY_AUTH_TOKEN_PATH"
MODE_VARIABLE = "RAY_AUTH_MODE"
HINT = "copy the head's: (umask 077; ssh HEAD cat .ray/auth_token > ~/.ray/auth_token)"


@dataclass(frozen=True)
class Token:
    """Holds a token and where it came from.

    Attributes:
        value: The secret; not part of `repr`.
        source: For messages: the variable or the file.
    """

    value: str = field(repr=False)
    source: str

    @property
    def header(self) -> dict[str, str]:
        """Returns the HTTP header that carries it."""
        return {"Authorization": f"Bearer {self.value}"}

    def refused(self, address: str) -> UserError:
        """Returns what to say when the cluster does not accept it."""
        return UserError(
            f"--address {address}: the cluster does not accept the token from {self.source}; {HINT}"
        )


def find_token(environment: Mapping[str, str] | None = None, home: Path | None = None) -> Token:
    """Finds the token that Ray would use: ``RAY_AUTH_TOKEN``, its file, ``~/.ray/auth_token``.

    Args:
        environment: Default: that of the process.
        home: Default: the user's.

    Raises:
        UserError: When there is none, it is empty, or others can read the file; with the fix.
    """
    environment = os.environ if environment is None else environment
    value = environment.get(VALUE_VARIABLE)
    if value is not None and value.strip():
        return _checked(value, VALUE_VARIABLE)
    named = environment.get(PATH_VARIABLE)
    path = Path(named) if named else _default_path(home)
    source = f"{path} ({PATH_VARIABLE})" if named else str(path)
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(4096)
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else error.strerror
        raise UserError(
            f"the cluster asks for a token and there is none: {VALUE_VARIABLE} is not set and "
            f"{source} {reason}; {HINT}"
        ) from None
    if mode & 0o077:
        raise UserError(
            f"{source}: found mode {mode:04o}, others can read or change the token and run "
            f"commands on the cluster with it; allowed is 0600: chmod 600 {path}"
        )
    return _checked(content.decode("utf-8", "replace"), source)


def make_token(environment: Mapping[str, str] | None = None, home: Path | None = None) -> None:
    """Makes the token that a local Ray would else make for itself, so that others cannot read it.

    Ray writes the file with the process's umask (0644 on most machines), and `find_token` refuses
    such a file. One that is there is left alone, and so is everything where Ray makes none.

    Args:
        environment: Default: that of the process.
        home: Default: the user's.
    """
    environment = os.environ if environment is None else environment
    asked = environment.get(MODE_VARIABLE, "token").lower()
    named = environment.get(VALUE_VARIABLE, "").strip() or environment.get(PATH_VARIABLE)
    path = _default_path(home)
    # Where the home cannot be written to, Ray says so in its own words.
    with suppress(OSError):
        empty = path.is_file() and not path.read_bytes().strip()
        if asked != "token" or named or (path.exists() and not empty):
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        try:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32))
                file.flush()
                os.fsync(file.fileno())
            if not empty:
                # Unlike a rename, this leaves the token of a process that was faster; not every
                # file system can.
                with suppress(OSError):
                    os.link(draft, path)
            if empty or not path.exists():
                draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def _default_path(home: Path | None) -> Path:
    return (home or Path.home()) / ".ray" / "auth_token"


def _checked(value: str, source: str) -> Token:
    value = value.strip()
    if not value:
        raise UserError(f"{source}: the token is empty; {HINT}")
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise UserError(
            f"{source}: this is not a token: found spaces, line breaks or characters beyond ASCII; "
            f"{HINT}"
        )
    return Token(value, source)
