"""``gsfl-tune export``: the winner of a run as a directory of its own."""

from __future__ import annotations

import argparse
from pathlib import Path

from gsfl_tune.cli._base import FINISHED, Command


class Export(Command):
    """Copies the bundle of a finished run."""

    name = "export"
    help = "copy the bundle of a finished run to a directory of its own"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("run_dir", metavar="RUN", type=Path, help="run directory")
        parser.add_argument(
            "out", metavar="OUT", type=Path, help="where the bundle goes; new or empty"
        )
        parser.add_argument(
            "--with-shared",
            action="store_true",
            help="include shared encoder, decoder and class centres",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Exports and lists what was written."""
        from gsfl_tune.export import export_run

        out = export_run(args.run_dir, args.out, with_shared=args.with_shared)
        print(f"exported to {out}")
        for path in sorted(out.iterdir()):
            print(f"  {path.name:<20} {_size(path.stat().st_size):>10}")
        return FINISHED


def _size(count: int) -> str:
    if count < 1e5:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:.1f} MB"
