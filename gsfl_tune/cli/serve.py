"""``gsfl-tune serve``: an HTTP server for a bundle."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from gsfl_tune.cli._base import FAILED, FINISHED, Command, add_engine, positive
from gsfl_tune.experiment.units import byte_count
from gsfl_tune.serve import Limits, serve


class Serve(Command):
    """Serves an exported bundle."""

    name = "serve"
    help = "answer POST /predict with a bundle, on this machine unless told otherwise"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        limits = Limits()
        parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="bundle, such as RUN/best")
        parser.add_argument(
            "--host", default="127.0.0.1", metavar="HOST", help="address to listen on (127.0.0.1)"
        )
        parser.add_argument(
            "--port", type=_port, default=8000, metavar="N", help="0 takes a free one (8000)"
        )
        parser.add_argument(
            "--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda, cuda:1 (auto)"
        )
        add_engine(parser)
        parser.add_argument(
            "--threads",
            type=positive,
            metavar="N",
            help="CPU threads of a forward pass; as many passes run side by side as fit the cores "
            "(default: a quarter of the cores, 1 to 4)",
        )
        parser.add_argument(
            "--max-batch",
            type=positive,
            default=limits.max_batch,
            metavar="N",
            help=f"images per forward pass ({limits.max_batch})",
        )
        parser.add_argument(
            "--max-wait",
            type=_milliseconds,
            default=1000 * limits.max_wait,
            metavar="MS",
            help=f"milliseconds that an image waits for others ({1000 * limits.max_wait:g})",
        )
        parser.add_argument(
            "--queue",
            type=positive,
            default=limits.queue,
            metavar="N",
            help=f"images accepted at a time; more are refused with 503 ({limits.queue})",
        )
        parser.add_argument(
            "--max-bytes",
            type=_size,
            default=limits.max_bytes,
            metavar="SIZE",
            help="limit of a request's body, such as 500kB or 64MB (32MB)",
        )
        parser.add_argument(
            "--max-pixels",
            type=positive,
            default=limits.max_pixels,
            metavar="N",
            help=f"largest width times height of an image ({limits.max_pixels})",
        )
        parser.add_argument(
            "--max-images",
            type=positive,
            default=limits.max_images,
            metavar="N",
            help=f"images per request ({limits.max_images})",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Serves until it is stopped."""
        limits = Limits(
            max_bytes=args.max_bytes,
            max_pixels=args.max_pixels,
            max_images=min(args.max_images, args.queue),
            queue=args.queue,
            max_batch=args.max_batch,
            max_wait=args.max_wait / 1000,
        )
        from gsfl_tune.export.engine import Engine

        served = serve(
            args.bundle,
            host=args.host,
            port=args.port,
            limits=limits,
            device=args.device,
            threads=args.threads,
            engine=Engine.of(args.engine, args.precision),
        )
        return FINISHED if served else FAILED


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{value} is not a port (0 to 65535)")
    return value


def _milliseconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 10_000:
        raise argparse.ArgumentTypeError(f"{value:g} is not within 0 to 10000")
    return value


def _size(text: str) -> int:
    if re.fullmatch(r"[0-9]+", text):
        count = int(text)
    elif re.fullmatch(r"[0-9]+(\.[0-9]+)? ?([kMG]?B|[KMG]iB)", text):
        count = byte_count(text)
    else:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; sizes are like 500kB or 64MB")
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not at least a byte")
    return count
