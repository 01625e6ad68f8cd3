"""Refuses requests that were sent to another name than this machine's: DNS rebinding.

A web page may give its own name the address 127.0.0.1. A browser then takes this server for the
page's own origin, and lets the page send images and read answers. The header ``Host`` still holds
the page's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse

from gsfl_tune.hosts import is_loopback
from gsfl_tune.serve.problems import Problem

_OWN = frozenset({"localhost", "127.0.0.1", "::1"})


def own_hosts(given: str, address: str) -> frozenset[str] | None:
    """Returns the names that requests may be sent to; None for any name.

    Args:
        given: Host that the server was told to listen on.
        address: Address that it listens on.
    """
    # What other machines reach has names that this process does not know.
    return _OWN | {given.lower()} if is_loopback(address) else None


class HostCheck:
    """Passes on requests to one of some hosts, with any port or none, and refuses others.

    Requests without the header are passed on: every browser sends it.

    Args:
        app: The ASGI application.
        hosts: The hosts, in small letters.
    """

    def __init__(self, app: Callable[..., Any], hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request."""
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"host" and _host(value) not in self._hosts:
                    await self._refuse(value, scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _refuse(self, found: bytes, scope: Any, receive: Any, send: Any) -> None:
        allowed = ", ".join(sorted(self._hosts))
        problem = Problem(
            421,
            "wrong_host",
            f"Host is {found.decode('latin-1')[:80]!r}, allowed are {allowed}: this server answers "
            "to names of its own machine only",
        )
        # uvicorn drops the body. To close the connection would reset it, and lose this answer.
        await JSONResponse(problem.to_json(), problem.status)(scope, receive, send)


def _host(value: bytes) -> str:
    """Returns the host of ``Host``, without the port and the brackets of an IPv6 address."""
    text = value.decode("latin-1").lower()
    return text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]
