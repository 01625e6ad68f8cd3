"""Reader of request bodies: one image, or several as multipart/form-data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from gsfl_tune.serve.admission import Ticket
from gsfl_tune.serve.limits import Limits
from gsfl_tune.serve.problems import Problem, too_large

# A client that is still sending does not read an answer. So a refused body is read to its end and
# discarded, within these limits.
_DISCARD_SECONDS = 5.0


@dataclass(frozen=True)
class Part:
    """Holds one image of a request: the client's name (None for a bare body) and its bytes."""

    name: str | None
    data: bytes


class Body:
    """Reads the body of one request.

    Args:
        request: The request.
        limits: Limits of the server.
        ticket: Counts the bytes in memory.
    """

    def __init__(self, request: Request, limits: Limits, ticket: Ticket) -> None:
        self._request = request
        self._limits = limits
        self._ticket = ticket
        self._stream = request.stream()
        self._begun = False
        self._read = 0

    async def images(self) -> list[Part]:
        """Reads all images of the request.

        Raises:
            Problem: If the body is too large, too slow, malformed, or has too many images.
            ClientDisconnect: If the client has disconnected.
        """
        declared = self._request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._limits.max_bytes:
            raise too_large(self._limits.max_bytes)
        kind = self._request.headers.get("content-type", "").partition(";")[0].strip().lower()
        seconds = self._limits.body_seconds
        try:
            async with asyncio.timeout(seconds):
                if kind == "multipart/form-data":
                    return await self._parts()
                return [Part(None, b"".join([chunk async for chunk in self._chunks()]))]
        except TimeoutError as error:
            raise Problem(
                408, "too_slow", f"the body did not arrive within {seconds:g} seconds"
            ) from error

    async def discard(self) -> None:
        """Reads the rest of a refused body, unless that is too much or takes too long."""
        waits = self._request.headers.get("expect", "").lower() == "100-continue"
        if waits and not self._begun:
            return  # the client asks (Expect: 100-continue) before it sends anything
        left = 2 * self._limits.max_bytes
        try:
            async with asyncio.timeout(_DISCARD_SECONDS):
                async for chunk in self._stream:
                    left -= len(chunk)
                    if left < 0:
                        return
        except (TimeoutError, ClientDisconnect, RuntimeError):
            return  # RuntimeError: it was already read to its end

    async def _chunks(self) -> AsyncIterator[bytes]:
        self._begun = True
        async for chunk in self._stream:
            self._read += len(chunk)
            if self._read > self._limits.max_bytes:
                raise too_large(self._limits.max_bytes)
            self._ticket.hold(len(chunk))
            yield chunk

    async def _parts(self) -> list[Part]:
        most = self._limits.max_images
        parser = MultiPartParser(
            self._request.headers, self._chunks(), max_files=most, max_fields=most
        )
        # Keep all parts in memory: the body limit is too small for files to help.
        parser.spool_max_size = self._limits.max_bytes
        try:
            form = await parser.parse()
        except MultiPartException as error:
            if "Too many files" in error.message:
                raise Problem(
                    413, "too_many_images", f"more than {most} images in one request"
                ) from error
            raise Problem(400, "malformed_body", error.message) from error
        except FormParserError as error:
            raise Problem(400, "malformed_body", str(error)) from error
        try:
            parts = [
                Part(value.filename or name, await value.read())
                for name, value in form.multi_items()
                if isinstance(value, UploadFile)
            ]
        finally:
            await form.close()
        if not parts:
            raise Problem(
                400, "no_image", "there is no file part: send images as with curl -F image=@FILE"
            )
        return parts
