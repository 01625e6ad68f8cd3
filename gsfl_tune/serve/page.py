"""The page of the server: files of this package, and the headers that protect their reader."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# Scripts and styles are files of this server: nothing inside the page runs, nothing is fetched
# from elsewhere, and no other page may frame it. Pictures are the person's own (blob:) and those
# of answers (data:).
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
    # Programs that ask for anything but HTML get a description in JSON.
    "Vary": "Accept",
}
_FILES = {"page.css": "text/css", "page.js": "text/javascript"}


def wants_page(request: Request) -> bool:
    """Returns whether a browser asks: it accepts HTML by name."""
    return "text/html" in request.headers.get("accept", "").lower()


def page() -> Response:
    """Returns the page."""
    return Response(_read("page.html"), media_type="text/html", headers=_HEADERS)


def routes() -> list[Route]:
    """Returns the routes of the files beside the page."""
    return [Route(f"/static/{name}", _route(name, kind)) for name, kind in _FILES.items()]


def _route(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = _read(name)

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return answer


def _read(name: str) -> bytes:
    return (files("gsfl_tune.serve") / "static" / name).read_bytes()
