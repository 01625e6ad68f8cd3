"""An S3 server on loopback with moods: ``python -m tests.s3_server MOOD_FILE``.

Prints its port. Every request looks at the mood: ``500`` fails all, ``refuse`` all that write.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>a bad day</Message></Error>"


class Moody:
    def __init__(self, mood: Path) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._mood = mood

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        mood = self._mood.read_text()
        writes = environ["REQUEST_METHOD"] in ("PUT", "POST", "DELETE")
        if mood == "500" or (mood == "refuse" and writes):
            status, code = (
                ("500 Internal Server Error", "InternalError")
                if mood == "500"
                else ("403 Forbidden", "AccessDenied")
            )
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(status, [("Content-Type", "application/xml")])
            return [_ERROR.format(code).encode()]
        return self._app(environ, start_response)


def main(mood: str) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, Moody(Path(mood)), threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
