"""``gsfl-tune watch``: the page of a run in a browser, while it runs."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path
from types import FrameType

from gsfl_tune.cli._base import FINISHED, Command, showing

_PORT = 8642


class Watch(Command):
    """Serves the page of a run."""

    name = "watch"
    help = "serve the report of a run, which follows the search while it runs"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("run_dir", metavar="RUN", type=Path, help="run directory")
        parser.add_argument(
            "--host",
            default="127.0.0.1",
            help="address to listen at (default: 127.0.0.1, for this machine alone)",
        )
        parser.add_argument(
            "--port",
            type=int,
            default=_PORT,
            help=f"port to listen at (default: {_PORT}; 0: any that is free)",
        )
        parser.add_argument("--open", action="store_true", help="open it in a browser")

    def run(self, args: argparse.Namespace) -> int:
        """Serves until Ctrl-C or SIGTERM."""
        before = signal.signal(signal.SIGTERM, _stop)
        try:
            with showing(f"waiting for a search to begin in {args.run_dir}", stderr=False):
                from gsfl_tune.report import WatchServer, wait_for_run

                wait_for_run(args.run_dir)
                server = WatchServer(args.run_dir, args.host, args.port)
            print(f"watching {args.run_dir} at {server.url}; Ctrl-C ends it", flush=True)
            if server.public:
                print("anyone who can reach this machine can read the page", flush=True)
            if args.open:
                import webbrowser

                # A browser in the console waits for the page, and returns only when it is closed.
                threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
            server.serve()
        except KeyboardInterrupt:
            print()
        finally:
            signal.signal(signal.SIGTERM, before)
        return FINISHED


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
