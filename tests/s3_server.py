"""An S3 server on loopback with moods: ``python -m tests.s3_server MOOD_FILE``.

Prints its port. Every request looks at the mood: ``500`` fails all, ``refuse`` all that write.
Those that are not failed are written down in ``MOOD_FILE.log``: access key, method, path and query.
Of those that are failed, the times are written down in ``MOOD_FILE.failed``.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.faults.moto_s3 import application, serve

_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>a bad day</Message></Error>"


class Moody:
    def __init__(self, mood: Path) -> None:
        self._app = application()
        self._mood = mood
        self._log = mood.with_name(f"{mood.name}.log")
        self._failed = mood.with_name(f"{mood.name}.failed")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        mood = self._mood.read_text()
        writes = environ["REQUEST_METHOD"] in ("PUT", "POST", "DELETE")
        if mood == "500" or (mood == "refuse" and writes):
            status, code = (
                ("500 Internal Server Error", "InternalError")
                if mood == "500"
                else ("403 Forbidden", "AccessDenied")
            )
            with self._failed.open("a") as file:
                file.write(f"{time.time()}\n")
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(status, [("Content-Type", "application/xml")])
            return [_ERROR.format(code).encode()]
        self._write_down(environ)
        return self._app(environ, start_response)

    def _write_down(self, environ: dict[str, Any]) -> None:
        found = re.search(r"Credential=([^/,]+)", environ.get("HTTP_AUTHORIZATION", ""))
        key = found[1] if found else "-"
        query = environ.get("QUERY_STRING") or "-"
        # Threads of the server append whole lines.
        with self._log.open("a") as file:
            file.write(f"{key} {environ['REQUEST_METHOD']} {environ['PATH_INFO']} {query}\n")


if __name__ == "__main__":
    serve(Moody(Path(sys.argv[1])))
