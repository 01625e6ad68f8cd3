"""The token of a Ray cluster: where it is found, and what is wrong with it. Never printed."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gsfl_tune.experiment.errors import UserError

VALUE_VARIABLE = "RAY_AUTH_TOKEN"
PATH_VARIABLE = "RAY_AUTH_TOKEN_PATH"
HINT = "copy the head's: (umask 077; ssh HEAD cat .ray/auth_token > ~/.ray/auth_token)"


@dataclass(frozen=True)
class Token:
    """A token and where it came from.

    Attributes:
        value: The secret; not part of `repr`.
        source: For messages: the variable or the file.
    """

    value: str = field(repr=False)
    source: str

    @property
    def header(self) -> dict[str, str]:
        """The HTTP header that carries it."""
        return {"Authorization": f"Bearer {self.value}"}

    def refused(self, address: str) -> UserError:
        """What to say when the cluster does not accept it."""
        return UserError(
            f"--address {address}: the cluster does not accept the token from {self.source}; {HINT}"
        )


def find_token(environment: Mapping[str, str] | None = None, home: Path | None = None) -> Token:
    """The token that Ray itself would use: ``RAY_AUTH_TOKEN``, its file, ``~/.ray/auth_token``.

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
    path = Path(named) if named else (home or Path.home()) / ".ray" / "auth_token"
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


def _checked(value: str, source: str) -> Token:
    value = value.strip()
    if not value:
        raise UserError(f"{source}: the token is empty; {HINT}")
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise UserError(
            f"{source}: this is no token: found spaces, line breaks or characters beyond ASCII; "
            f"{HINT}"
        )
    return Token(value, source)
