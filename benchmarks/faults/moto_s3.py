"""An S3 server on loopback, of `moto`, objects in memory: ``python -m benchmarks.faults.moto_s3``.

Prints its port.
"""

from __future__ import annotations

import logging
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


def application() -> Any:
    """The server as a WSGI application."""
    return DomainDispatcherApplication(create_backend_app)


def serve(application: Any) -> None:
    """Serves until the process ends."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(application())
