"""Fetches single images over HTTP, with limits on size, time and redirects."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import IO, Any

MAX_BYTES = 50_000_000
SECONDS = 30.0
REDIRECTS = 3
_CHUNK = 1 << 16


class FetchError(ValueError):
    """Raised for a URL that cannot be fetched; the message says why, without the URL."""


def is_url(text: str) -> bool:
    """Returns whether a text is a URL of any scheme."""
    return "://" in text


def fetch(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    seconds: float = SECONDS,
    redirects: int = REDIRECTS,
) -> bytes:
    """Reads the content of an http or https URL.

    Args:
        url: The URL.
        max_bytes: Largest number of bytes read.
        seconds: Time limit in total.
        redirects: Number of redirects followed; never from https to http, nor to another scheme.

    Raises:
        FetchError: If it is not such a URL, the server cannot be reached or does not send a file,
            or the file is too large, too slow or incomplete.
    """
    deadline = time.monotonic() + seconds
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError(f"found {parts.scheme or 'no'}://, allowed are http:// and https://")
    if parts.username is not None:
        raise FetchError("found a user name in the URL, which is not sent")
    request = urllib.request.Request(
        urllib.parse.quote(url, safe=":/?#[]@!$&'()*+,;=%~"), headers={"User-Agent": "gsfl-tune"}
    )
    try:
        with _opener(redirects).open(request, timeout=seconds) as response:
            return _read(response, max_bytes, deadline, seconds)
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(_answered(error, redirects)) from error
    except TimeoutError as error:
        raise FetchError(_slow(seconds)) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise FetchError(_slow(seconds)) from error
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise FetchError(f"the server cannot be reached ({reason})") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        reason = str(error) or type(error).__name__
        raise FetchError(f"the server did not answer as it should ({reason})") from error


def _read(response: Any, max_bytes: int, deadline: float, seconds: float) -> bytes:
    said = response.headers.get("Content-Length")
    expected = int(said) if said is not None and said.isdigit() else None
    if expected is not None and expected > max_bytes:
        raise FetchError(f"found {expected:,} bytes, allowed at most {max_bytes:,}")
    content = bytearray()
    # One receive at a time: a server that sends single bytes slowly must not block us.
    while chunk := response.read1(_CHUNK):
        content += chunk
        if len(content) > max_bytes:
            raise FetchError(f"found more bytes than the {max_bytes:,} that are allowed")
        if time.monotonic() > deadline:
            raise FetchError(_slow(seconds))
    if expected is not None and len(content) < expected:
        raise FetchError(f"ended after {len(content):,} of {expected:,} bytes")
    return bytes(content)


def _slow(seconds: float) -> str:
    return f"was not there within {seconds:g} s"


def _answered(error: urllib.error.HTTPError, redirects: int) -> str:
    if 300 <= error.code < 400:
        if error.reason == _REFUSED or "is not allowed" in str(error.reason):
            return _REFUSED
        return f"more than {redirects} redirects, or one that leads to itself"
    return f"the server answers {error.code} {error.reason}".rstrip()


_REFUSED = "is redirected to where it is not followed: from https to http, or to another scheme"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a limited number of redirects, and only to URLs that are as safe."""

    max_repeats = 1

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Makes the next request, unless it leaves http, or https for http."""
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme != "https" and (scheme != "http" or req.type == "https"):
            raise urllib.error.HTTPError(req.full_url, code, _REFUSED, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(redirects: int) -> urllib.request.OpenerDirector:
    """Opens http and https only: no files, no FTP."""

    class Limited(_Redirects):
        max_redirections = redirects

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        Limited(),
    ):
        opener.add_handler(handler)
    return opener
