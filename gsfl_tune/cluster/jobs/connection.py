"""The way to a cluster: is this address a Ray dashboard, and does it take our token."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from gsfl_tune.cluster.token import Token, find_token
from gsfl_tune.experiment.errors import UserError, first_line
from gsfl_tune.hosts import is_loopback

_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
# The dashboard of a busy head takes its time to answer.
_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 60.0
_CHATTY = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)
_TUNNEL = "ssh -N -L 8265:127.0.0.1:8265 HEAD, then --address http://127.0.0.1:8265"


@dataclass(frozen=True)
class Connection:
    """Holds a dashboard that answered.

    Attributes:
        address: ``http://HOST:PORT``.
        version: Ray's version there.
        token: What it asked for; None where it asks for none.
        warnings: What the user should know of it.
    """

    address: str
    version: str
    token: Token | None
    warnings: list[str] = field(default_factory=list)

    def client(self) -> Any:
        """Returns Ray's ``JobSubmissionClient``.

        Raises:
            UserError: When Ray was installed without it, or the dashboard is gone.
        """
        sdk = _sdk()
        with _only_this(self.address), explained(self.address):
            return sdk(self.address, headers=self.token.header if self.token else None)


def connect(address: str | None) -> Connection:
    """Asks a dashboard who it is; sends a token only to one that asks as Ray does.

    Args:
        address: ``http://HOST:PORT`` of the dashboard; default: ``RAY_API_SERVER_ADDRESS``.

    Raises:
        UserError: When there is no dashboard, or the token is missing, wrong or readable by others.
    """
    _sdk()
    import requests

    address = dashboard_address(address)
    token = None
    with explained(address):
        answer = requests.get(
            f"{address}/api/version",
            timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
            allow_redirects=False,
            auth=_no_netrc,
        )
        if answer.status_code == 401 and "authentication token" in answer.text:
            token = find_token()
            answer = requests.get(
                f"{address}/api/version",
                timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
                allow_redirects=False,
                headers=token.header,
                auth=_no_netrc,
            )
            if answer.status_code in (401, 403):
                raise token.refused(address)
    try:
        version = str(answer.json()["ray_version"])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"--address {address}: something answers (status {answer.status_code}), but it is not "
            f"a Ray dashboard; allowed is the dashboard's address, by default port 8265"
        ) from None
    return Connection(address, version, token, _warnings(address, version, token))


def dashboard_address(given: str | None) -> str:
    """Returns the dashboard's URL of what a user wrote.

    Raises:
        UserError: When there is none, or it is the address of something else.
    """
    import_address = given
    for name in _VARIABLES:
        # RAY_ADDRESS may be that of the cluster itself, for `gsfl-tune search`.
        value = os.environ.get(name, "")
        if import_address is None and value.startswith(("http://", "https://")):
            import_address = value
    allowed = "allowed is the dashboard's: http://HOST:8265"
    if import_address is None:
        raise UserError(f"--address is missing and {_VARIABLES[0]} is not set; {allowed}")
    address = import_address if "://" in import_address else f"http://{import_address}"
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https"):
        raise UserError(f"--address {import_address}: found no address of a dashboard; {allowed}")
    if parts.username or parts.password:
        raise UserError(f"--address: found a password in the address of {host}; {allowed}")
    if port == 10001 or port == 6379:
        raise UserError(
            f"--address {import_address}: port {port} is not the dashboard's; {allowed}"
        )
    return address.rstrip("/")


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turns errors of the way to the cluster into the user's.

    Raises:
        UserError: In place of them.
    """
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError:
        raise UserError(
            f"--address {address}: the cluster does not accept the token any more; was it "
            "started anew? Copy the head's ~/.ray/auth_token again"
        ) from None
    except requests.exceptions.ReadTimeout:
        raise UserError(
            f"--address {address}: something takes the connection and does not answer; is it the "
            "dashboard, and has its machine time to spare?"
        ) from None
    except requests.exceptions.Timeout:
        raise UserError(
            f"--address {address}: no connection in {_CONNECT_SECONDS:g} s; is a firewall between? "
            f"{_TUNNEL}"
        ) from None
    except requests.exceptions.SSLError as error:
        raise UserError(f"--address {address}: TLS failed: {_reason(error)}") from None
    except (requests.exceptions.RequestException, ConnectionError, OSError) as error:
        raise UserError(
            f"--address {address}: no Ray dashboard answers ({_reason(error)}); is the head up? "
            f"Dashboards listen on loopback: {_TUNNEL}"
        ) from None


def _no_netrc(request: Any) -> Any:
    """Keeps `requests` from sending a password of ~/.netrc."""
    return request


def _sdk() -> Any:
    try:
        import aiohttp  # noqa: F401
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise UserError(
            f"working with a cluster needs more of Ray ({error}): pip install 'gsfl-tune[cluster]'"
        ) from error
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    return JobSubmissionClient


@contextmanager
def _only_this(address: str) -> Iterator[None]:
    """Ray lets the environment override the address that its client is given."""
    before = os.environ.get(_VARIABLES[0])
    os.environ[_VARIABLES[0]] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLES[0]]
        else:
            os.environ[_VARIABLES[0]] = before


def _warnings(address: str, version: str, token: Token | None) -> list[str]:
    import ray

    found = []
    if token is None:
        found.append(
            "this cluster asks for no token: whoever reaches it can run commands on it "
            "(docs/security.md)"
        )
    elif address.startswith("http://") and not is_loopback(urlsplit(address).hostname or ""):
        found.append(f"the token travels unencrypted to this address; better: {_TUNNEL}")
    if version != ray.__version__:
        found.append(f"Ray is {version} there and {ray.__version__} here")
    return found


def _reason(error: Exception) -> str:
    text = str(error)
    for known in ("Connection refused", "Name or service not known", "No route to host"):
        if known in text:
            return known
    if "NameResolutionError" in text or "resolve" in text:
        return "the host's name is not known"
    return first_line(error)[:200]
