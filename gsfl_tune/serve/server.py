"""Runner of the application: socket, signals and threads."""

from __future__ import annotations

import signal
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.hosts import is_loopback
from gsfl_tune.serve.limits import Limits

if TYPE_CHECKING:
    from gsfl_tune.export.engine import Engine

_BACKLOG = 1024


def serve(
    path: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    device: str = "auto",
    threads: int | None = None,
    engine: Engine | None = None,
    announce: Callable[[str], None] = lambda text: print(text, flush=True),
) -> bool:
    """Serves a bundle until SIGTERM or SIGINT; requests in progress are answered first.

    Call it in the main thread of a process that does nothing else.

    Args:
        path: The bundle.
        host: Address to listen on; everyone who reaches it can use the model.
        port: Port; 0 takes any free port.
        limits: Limits of the server.
        device: ``auto`` or a torch device.
        threads: CPU threads of a forward pass; default: see `Threads`.
        engine: Who answers on a CPU; default: OpenVINO where it is installed.
        announce: Receives the address, and at the end the number of answers.

    Returns:
        Whether it started to serve.

    Raises:
        UserError: If the extra is missing, the bundle cannot be loaded or not be run by the engine,
            or it cannot listen on the port.
    """
    uvicorn = _uvicorn()
    import torch
    from PIL import Image

    from gsfl_tune.cores import usable_cores
    from gsfl_tune.export import load_bundle
    from gsfl_tune.heap import give_back
    from gsfl_tune.serve.app import Service, create_app
    from gsfl_tune.serve.host_check import own_hosts
    from gsfl_tune.serve.model import Threads

    limits = limits or Limits()
    if Image.MAX_IMAGE_PIXELS is not None and limits.max_pixels > Image.MAX_IMAGE_PIXELS:
        raise UserError(
            f"--max-pixels is {limits.max_pixels}, allowed are 1 to {Image.MAX_IMAGE_PIXELS}"
        )
    with listen(host, port) as listener:
        # ONNX Runtime creates its pool while it loads, with the size of torch's pool at that time.
        # A bundle may run on the CPU even if there is a GPU.
        torch.set_num_threads(Threads.of(torch.device("cpu"), usable_cores(), threads).model)
        if engine is not None and device == "auto":
            device = engine.device
        bundle = load_bundle(path, device)
        if engine is not None:
            engine.check(bundle)
        shared = Threads.of(bundle.device, usable_cores(), threads)
        torch.set_num_threads(shared.model)
        # Images between our limit and Pillow's are answered, so Pillow's warning is not needed.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        service = Service(bundle, limits, shared, engine)
        # The network that was loaded may be needed no more.
        bundle = service.bundle
        service.model.warm_up(limits.max_batch)
        give_back()
        where = url(listener)

        def ready() -> None:
            announce(
                f"{bundle.config.get('name', bundle.path)} ({len(bundle.classes)} classes, "
                f"{bundle.device}, {service.engine}) on {where}\n"
                f"  curl --data-binary @IMAGE {where}/predict\n"
                "Ctrl-C or SIGTERM stops it."
            )
            if not is_loopback(host):
                announce(
                    f"Listening on {host}: everyone who reaches it can use the model; there is no "
                    "password and no encryption."
                )

        config = uvicorn.Config(
            create_app(service, ready, own_hosts(host, listener.getsockname()[0])),
            log_level="warning",
            access_log=False,
            lifespan="on",
            ws="none",
            server_header=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=int(limits.stop_seconds),
        )
        server = _server(config)
        # uvicorn restores the handlers that it found and raises the signal again, which would end
        # this process with an error.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        server.run(sockets=[listener])
    if not server.started:
        print("the server could not start", file=sys.stderr)
        return False
    announce(f"stopped after {service.metrics.answered} answers")
    return True


def listen(host: str, port: int) -> socket.socket:
    """Opens a listening socket.

    Raises:
        UserError: If the address is not available.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot listen on {host}, port {port}: {reason}") from error


def url(listener: socket.socket) -> str:
    """Returns the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server(config: Any) -> Any:
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # uvicorn does not wait after a second SIGINT; service managers send SIGTERM.
            self.force_exit = self.should_exit
            super().handle_exit(sig, frame)

    return Server(config)


def _uvicorn() -> Any:
    try:
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise UserError(
            f"serving needs more packages ({error}): pip install 'gsfl-tune[serve]'"
        ) from error
    return uvicorn
