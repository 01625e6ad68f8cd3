"""Runs the steps, each in a process of its own; see ``docs/gpu.md``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.gpu.plan import STEPS, Plan, run_plan, run_step


def main() -> int:
    """Runs the chosen steps; 0 where all of them met what they assert."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu/run.sh", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(STEPS), default=[])
    parser.add_argument("--minutes", type=float, default=8, help="for all steps together (8)")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder (runs/gpu)")
    parser.add_argument("--tiny", action="store_true", help="a smoke run: tiny sizes, on the CPU")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--shared", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        return run_step(options.step, options.out, options.shared, tiny=options.tiny)
    names = [name for name in STEPS if not options.only or name in options.only]
    return run_plan(Plan(names, 60 * options.minutes, options.out, options.tiny))


if __name__ == "__main__":
    sys.exit(main())
